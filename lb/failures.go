package lb

import (
	"log/slog"
	"time"
)

// failures keeps the latest error, for people, and how long to wait after it.
type failures struct {
	min, max time.Duration // bounds of the wait before a failed operation is tried again
	log      *slog.Logger

	wait time.Duration // after the latest failure in a row; 0: none since the last success
	text string        // the latest error; "" after a success
	at   time.Time     // when it happened
}

// report keeps an error. The same error again is not logged again.
func (f *failures) report(now time.Time, action string, err error) {
	text := action + ": " + err.Error()
	if text != f.text {
		f.log.Error("load balancing failed and will be retried", slog.String("action", action), slog.Any("error", err))
	}
	f.text, f.at = text, now
}

// nextBackoff returns how long to wait after another failure in a row.
func (f *failures) nextBackoff() time.Duration {
	f.wait = min(max(2*f.wait, f.min), f.max)
	return f.wait
}

// clear ends a row of failures.
func (f *failures) clear() { f.wait, f.text, f.at = 0, "", time.Time{} }
