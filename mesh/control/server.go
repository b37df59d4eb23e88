package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// idleLimit is how long a connection may wait for its next request.
const idleLimit = 2 * time.Minute

// shutdownLimit is how long Serve lets requests finish.
const shutdownLimit = 5 * time.Second

// Serve serves the API over b on l until ctx ends: watches end at once, other
// requests have some seconds to finish. It closes l, and returns nil after ctx
// ended and an error if l failed.
func Serve(ctx context.Context, l net.Listener, b Backend, log *slog.Logger) error {
	return serve(ctx, l, b, log, defaultLimits())
}

func serve(ctx context.Context, inner net.Listener, b Backend, log *slog.Logger, lim limits) error {
	stop := make(chan struct{})
	l := boundConnections(inner, lim.connections)
	srv := &http.Server{
		Handler: newHandler(b, log, stop, lim), ReadHeaderTimeout: lim.body, IdleTimeout: idleLimit,
		ConnContext:    withConnection,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		close(stop)
		return fmt.Errorf("serve control API: %w", errors.Join(err, srv.Close()))
	case <-ctx.Done():
	}
	close(stop)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	if err := srv.Shutdown(limit); err != nil {
		log.Warn("control requests cut off", "error", err)
		_ = srv.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control API: %w", err)
	}
	return nil
}
