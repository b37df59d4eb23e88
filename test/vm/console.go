package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// tail keeps the last bytes written to it. Safe for several goroutines.
type tail struct {
	max int

	mu   sync.Mutex // guards everything that follows
	kept []byte
	last time.Time // when something came
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept, t.last = append(t.kept, p...), time.Now()
	if over := len(t.kept) - t.max; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

// silent tells for how long nothing has come since a moment.
func (t *tail) silent(since time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last.After(since) {
		since = t.last
	}
	return time.Since(since)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ReplaceAll(string(t.kept), "\r\n", "\n")
}

// console collects the kernel's messages.
type console struct {
	conn net.Conn
	tail *tail
	done chan struct{} // closed when no more come
}

// maxConsole is how much of the kernel's last messages is kept: a list of all
// tasks is long.
const maxConsole = 1 << 20

func watchConsole(conn net.Conn, also io.Writer) *console {
	c := &console{conn: conn, tail: &tail{max: maxConsole}, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		_, _ = io.Copy(io.MultiWriter(c.tail, also), conn)
	}()
	return c
}

func (c *console) close() {
	_ = c.conn.Close()
	<-c.done
}

// failure is what to tell when the job was not done: err came instead of the
// next frame, while program at ran.
func (b *boot) failure(ctx context.Context, err error, at int) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f := &Failure{Hung: errors.Is(err, os.ErrDeadlineExceeded)}
	where := fmt.Sprintf("while program %d ran", at+1)
	if at < 0 {
		where = "before init said hello"
	}
	switch {
	case f.Hung:
		f.Why = fmt.Sprintf("nothing came from it any more, %s; the kernel's tasks are in the log", where)
		b.sysrq()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		b.await(b.console.done)
		f.Why = fmt.Sprintf("it ended by itself %s: %s", where, reason(b.console.tail.String(), b.says.String()))
	default:
		f.Why = fmt.Sprintf("%s: %v", where, err)
	}
	f.Console = b.console.tail.String()
	return f
}

// await waits for something that takes a moment only.
func (b *boot) await(done <-chan struct{}) {
	limit := time.NewTimer(finalOutputLimit)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	}
}

// finalOutputLimit is how long a machine that failed may take for its last messages.
const finalOutputLimit = 10 * time.Second

// reason finds the line that tells most in the kernel's or QEMU's messages.
func reason(console, qemu string) string {
	for _, sign := range []string{"Kernel panic", "BUG:", "Oops", "init:", "Out of memory"} {
		for line := range strings.Lines(console) {
			if strings.Contains(line, sign) {
				return strings.TrimSpace(line)
			}
		}
	}
	if qemu = strings.TrimSpace(qemu); qemu != "" {
		return qemu
	}
	return "there is no message"
}

// sysrq asks a kernel that may no longer run programs for its blocked tasks,
// all tasks and memory: a break on the console, then a letter.
func (b *boot) sysrq() {
	_ = b.monitor.SetDeadline(time.Now().Add(5 * finalOutputLimit))
	answers := json.NewDecoder(b.monitor)
	var answer json.RawMessage
	if answers.Decode(&answer) != nil { // its greeting
		return
	}
	order := func(name string, args any) error {
		text, err := json.Marshal(map[string]any{"execute": name, "arguments": args})
		if err == nil {
			_, err = b.monitor.Write(text)
		}
		if err == nil {
			err = answers.Decode(&answer)
		}
		return err
	}
	if order("qmp_capabilities", struct{}{}) != nil {
		return
	}
	for _, letter := range []string{"9", "w", "t", "m"} { // 9: all messages reach the console
		if order("chardev-send-break", map[string]string{"id": "console"}) != nil {
			return
		}
		if _, err := b.console.conn.Write([]byte(letter)); err != nil {
			return
		}
		b.listen()
	}
}

// listen waits until the console has been silent for a second: a break that
// comes before the letter that belongs to the last one would undo that.
func (b *boot) listen() {
	begin := time.Now()
	limit := time.NewTimer(finalOutputLimit)
	defer limit.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for b.console.tail.silent(begin) < time.Second {
		select {
		case <-limit.C:
			return
		case <-tick.C:
		}
	}
}
