package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serveTest serves f on a real socket until the test ends.
func serveTest(t *testing.T, f *fake, lim limits) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, f, slog.New(slog.DiscardHandler), lim) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func dialRaw(t *testing.T, path, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// Requests that never become complete keep no other client out, whatever their
// route, and their connections end soon.
func TestHangingRequests(t *testing.T) {
	path := serveTest(t, newFake(), limits{body: 200 * time.Millisecond, connections: 64, watchers: 16})
	var hang []net.Conn
	for i := range 300 {
		hang = append(hang, dialRaw(t, path, []string{
			"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
			"GET /v1/watch HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
			"GET /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
			"GET /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
			"GET /v1/status HTTP/1.1\r\nHost:",
			"",
		}[i%6]))
	}
	for range 5 {
		if _, err := Dial(path).Status(t.Context()); err != nil {
			t.Fatalf("beside 300 requests that hang: %v", err)
		}
	}
	for i, c := range hang { // each is ended by the server, one way or the other
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Fatalf("connection %d is still open", i)
		}
	}
}

// Watchers never take the connections that commands need, and one too many is
// refused.
func TestWatchersAreBounded(t *testing.T) {
	f := newFake()
	path := serveTest(t, f, limits{body: bodyLimit, connections: 16, watchers: 4})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started, ended := make(chan struct{}), make(chan error, 4)
	for range 4 {
		go func() {
			ended <- Dial(path).Watch(ctx, WatchRequest{}, func(Event) error { started <- struct{}{}; return nil })
		}()
		<-started
	}
	for range 30 {
		err := Dial(path).Watch(t.Context(), WatchRequest{}, func(Event) error { return nil })
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeBusy || e.Hint == "" {
			t.Fatalf("a watcher too many: %v", err)
		}
		if _, err := Dial(path).Status(t.Context()); err != nil {
			t.Fatalf("a command beside watchers: %v", err)
		}
	}
	cancel()
	for range 4 {
		<-ended
	}
	// Those that ended make room.
	if err := Dial(path).Watch(t.Context(), WatchRequest{}, func(Event) error { return errEnough }); !errors.Is(err,
		errEnough) && !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
}

// Where every connection is being answered, one more is refused at once.
func TestAllConnectionsBusy(t *testing.T) {
	f := newFake()
	f.delay = 10 * time.Second
	path := serveTest(t, f, limits{body: bodyLimit, connections: 2, watchers: 1})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, 2)
	for range 2 {
		go func() {
			_, _ = Dial(path).Status(ctx)
			ended <- struct{}{}
		}()
		<-f.entered
	}
	if _, err := Dial(path).Status(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	cancel()
	<-ended
	<-ended
}

// A client too many is refused, with a body or without, one after the other and
// many at once.
func TestTooManyAreTold(t *testing.T) {
	f := newFake()
	f.delay = time.Minute
	path := serveTest(t, f, limits{body: bodyLimit, connections: 1, watchers: 1})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		_, _ = Dial(path).Status(ctx)
		close(ended)
	}()
	<-f.entered
	told := make(chan error)
	for range maxOver / 4 {
		go func() {
			for range 10 {
				_, err := Dial(path).AddTask(t.Context(), AddTask{Network: "n", Service: strings.Repeat("s", maxBody/2)})
				told <- err
			}
		}()
	}
	for range maxOver / 4 * 10 {
		if err := <-told; !errors.Is(err, ErrBusy) {
			t.Errorf("got %v", err)
		}
	}
	cancel()
	<-ended
}

// The oldest of those that wait for their client goes, never one that is answered.
func TestWhoGivesWay(t *testing.T) {
	l := boundConnections(nil, 3)
	var all []*connection
	add := func() net.Conn {
		a, b := net.Pipe()
		t.Cleanup(func() { _, _ = a.Close(), b.Close() })
		c := l.admit(a)
		if c != nil {
			all = append(all, c.(*connection))
		}
		return c
	}
	for range 3 {
		add()
	}
	done := all[0].beginAnswer()
	if add() == nil {
		t.Fatal("refused, though two wait")
	}
	if _, there := l.all.held[all[0]]; !there {
		t.Error("one that is being answered had to go")
	}
	if _, there := l.all.held[all[1]]; there {
		t.Error("the oldest that waits is still there")
	}
	for _, c := range all[2:] {
		defer c.beginAnswer()()
	}
	// Over the bound are those that are refused. Of them, too, the one that has
	// waited longest is closed.
	bounded := len(all)
	for range maxOver + 1 {
		if add() == nil {
			t.Fatal("closed without a word, though nobody is being told")
		}
	}
	over := all[bounded:]
	if len(l.all.held) != 3 || len(l.over.held) != maxOver {
		t.Errorf("%d within the bound and %d over it", len(l.all.held), len(l.over.held))
	}
	if _, there := l.over.held[over[0]]; there {
		t.Error("the oldest over the bound is still there")
	}
	for _, c := range over[1:] {
		defer c.beginAnswer()()
	}
	if add() != nil {
		t.Error("a place more than there are")
	}
	_, _ = over[1].Close(), over[1].Close()
	if first, second := add(), add(); first == nil || second == nil || len(l.over.held) != maxOver {
		t.Errorf("%d over the bound after one that was closed twice", len(l.over.held))
	}
	done()
	if add() == nil {
		t.Error(fmt.Sprint("refused, though one waits: ", len(l.all.held)))
	}
}

// A body that is too long by its own account is refused before it comes.
func TestLongBodiesAreRefusedAtOnce(t *testing.T) {
	path := serveTest(t, newFake(), limits{body: time.Hour, connections: 4, watchers: 1})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprintf(c, "POST /v1/tasks HTTP/1.1\r\nHost: meshd\r\nContent-Length: %d\r\n\r\n{",
		maxBody+1); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", r.StatusCode)
	}
}

// A client that sends far more than is read gets the refusal: it has the time to
// read it before its connection is closed.
func TestTooLongIsTold(t *testing.T) {
	path := serveTest(t, newFake(), limits{body: bodyLimit, connections: 4, watchers: 1})
	c := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
	body := make([]byte, 8<<20)
	for i := range 20 {
		r, err := c.Post("http://meshd/v1/tasks", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		_ = r.Body.Close()
		if r.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("request %d: status %d", i, r.StatusCode)
		}
	}
}
