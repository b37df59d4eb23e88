package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/state"
)

// start serves b on a socket of its own and returns a client for it.
func start(t *testing.T, b Backend) *Client {
	t.Helper()
	l, err := Listen(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, b, slog.New(slog.DiscardHandler)) }()
	c := Dial(l.Addr().String())
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return c
}

// calls has one call of every method of Backend but Watch.
func calls() map[string]func(context.Context, Backend) (any, error) {
	ref := ServiceRef{Network: "collabnet", Name: "web"}
	add := AddTask{
		Network: "collabnet", Service: "web", ID: "3f9c", Slot: 3, IPs: []string{"10.1.0.2", "fd00::2"},
		Ports:   []string{"http:80/tcp"},
		Aliases: []string{"www"}, Hostname: "h", Name: "n", Weight: 65535, VIPs: []string{"10.9.0.9"},
		SetService: SetService{Mode: "vip", Scheduler: "wlc"},
	}
	key := KeyRequest{Key: "1f2e3d4c5b6a"}
	return map[string]func(context.Context, Backend) (any, error){
		"Version":  func(ctx context.Context, b Backend) (any, error) { return b.Version(ctx) },
		"Status":   func(ctx context.Context, b Backend) (any, error) { return b.Status(ctx) },
		"Nodes":    func(ctx context.Context, b Backend) (any, error) { return b.Nodes(ctx) },
		"Leave":    func(ctx context.Context, b Backend) (any, error) { return b.Leave(ctx) },
		"Networks": func(ctx context.Context, b Backend) (any, error) { return b.Networks(ctx) },
		"Keys":     func(ctx context.Context, b Backend) (any, error) { return b.Keys(ctx) },
		"Join": func(ctx context.Context, b Backend) (any, error) {
			return b.Join(ctx, JoinRequest{Addresses: []string{"192.0.2.1:7946", "host"}})
		},
		"Metrics": func(ctx context.Context, b Backend) (any, error) {
			var w bytes.Buffer
			err := b.Metrics(ctx, &w)
			return w.String(), err
		},
		"Diff": func(ctx context.Context, b Backend) (any, error) {
			return b.Diff(ctx, DiffRequest{Network: "collabnet"})
		},
		"Spread": func(ctx context.Context, b Backend) (any, error) {
			return b.Spread(ctx, SpreadRequest{Network: "collabnet"})
		},
		"CreateNetwork": func(ctx context.Context, b Backend) (any, error) {
			return b.CreateNetwork(ctx, CreateNetwork{Name: "collabnet", Subnet: "10.9.0.0/16", Subnet6: "fd00::/64"})
		},
		"Network":       func(ctx context.Context, b Backend) (any, error) { return b.Network(ctx, "collabnet") },
		"RemoveNetwork": func(ctx context.Context, b Backend) (any, error) { return nil, b.RemoveNetwork(ctx, "collabnet") },
		"AddTask":       func(ctx context.Context, b Backend) (any, error) { return b.AddTask(ctx, add) },
		"RemoveTask": func(ctx context.Context, b Backend) (any, error) {
			return b.RemoveTask(ctx, TaskRef{ID: "3f9c", Network: "collabnet"})
		},
		"DrainTask": func(ctx context.Context, b Backend) (any, error) { return b.DrainTask(ctx, TaskRef{ID: "3f9c"}) },
		"Tasks": func(ctx context.Context, b Backend) (any, error) {
			return b.Tasks(ctx, TaskFilter{Network: "collabnet", Service: "web", All: true})
		},
		"Services": func(ctx context.Context, b Backend) (any, error) { return b.Services(ctx, "") },
		"Service":  func(ctx context.Context, b Backend) (any, error) { return b.Service(ctx, ref) },
		"SetService": func(ctx context.Context, b Backend) (any, error) {
			return b.SetService(ctx, ref, SetService{Mode: "dnsrr", Scheduler: "wlc", TTL: "default"})
		},
		"ServiceTasks": func(ctx context.Context, b Backend) (any, error) { return b.ServiceTasks(ctx, ref) },
		"Resolve": func(ctx context.Context, b Backend) (any, error) {
			return b.Resolve(ctx, ResolveRequest{Name: "_http._tcp.web.", Network: "collabnet", Type: "SRV", Trace: true})
		},
		"LB": func(ctx context.Context, b Backend) (any, error) {
			return b.LB(ctx, LBRequest{Network: "collabnet", Service: "web", Sandbox: "box_1"})
		},
		"Doctor": func(ctx context.Context, b Backend) (any, error) { return b.Doctor(ctx) },
		"VerifyLB": func(ctx context.Context, b Backend) (any, error) {
			return b.VerifyLB(ctx, LBVerifyRequest{Sandbox: "box_1", ReportOnly: true})
		},
		"AttachSandbox": func(ctx context.Context, b Backend) (any, error) {
			return b.AttachSandbox(ctx, AttachSandbox{
				Networks: []string{"collabnet"}, Netns: "/run/netns/web",
				Task: &AddTask{Service: "web"},
			})
		},
		"DetachSandbox": func(ctx context.Context, b Backend) (any, error) { return b.DetachSandbox(ctx, "web.1") },
		"Sources":       func(ctx context.Context, b Backend) (any, error) { return b.Sources(ctx) },
		"Sandboxes":     func(ctx context.Context, b Backend) (any, error) { return b.Sandboxes(ctx) },
		"Sandbox":       func(ctx context.Context, b Backend) (any, error) { return b.Sandbox(ctx, "web.1") },
		"InstallKey":    func(ctx context.Context, b Backend) (any, error) { return b.InstallKey(ctx, key) },
		"UseKey":        func(ctx context.Context, b Backend) (any, error) { return b.UseKey(ctx, key) },
		"RemoveKey":     func(ctx context.Context, b Backend) (any, error) { return b.RemoveKey(ctx, key) },
	}
}

// A call through the socket is the call itself: same arguments, same reply.
func TestRoundTrip(t *testing.T) {
	local, remote := newFake(), newFake()
	c := start(t, remote)
	for name, call := range calls() {
		want, err := call(t.Context(), local)
		if err != nil {
			t.Fatalf("%s of the fake: %v", name, err)
		}
		got, err := call(t.Context(), c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, want := remote.last(), local.last(); got != want {
			t.Errorf("%s reached the Backend as %s, want %s", name, got, want)
		}
		if g, w := mustJSON(t, got), mustJSON(t, want); g != w {
			t.Errorf("%s: reply (-want +got):\n%s", name, cmp.Diff(w, g))
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What a Backend refuses arrives with its code, message, hint and field.
func TestRefusal(t *testing.T) {
	f := newFake()
	c := start(t, f)
	for code := range statusOf {
		f.err = fmt.Errorf("wrapped: %w", &Error{Code: code, Message: "m", Hint: "h", Field: "f"})
		for name, call := range calls() {
			_, err := call(t.Context(), c)
			e, ok := errors.AsType[*Error](err)
			if !ok || *e != (Error{Code: code, Message: "m", Hint: "h", Field: "f"}) || !errors.Is(err, &Error{Code: code}) {
				t.Errorf("%s refused with %s: got %#v", name, code, err)
			}
		}
	}
}

func TestErrorMapping(t *testing.T) {
	f := newFake()
	c := start(t, f)
	for _, tt := range []struct {
		err  error
		want error
	}{
		{fmt.Errorf("x: %w", state.ErrInvalid), ErrInvalid},
		{context.DeadlineExceeded, &Error{Code: CodeTimeout}},
		{context.Canceled, ErrUnavailable},
		{errors.New("disk on fire"), &Error{Code: CodeInternal}},
		{Refuse(CodeConflict, "h", "id %s is in use", "x"), ErrConflict},
		{Refuse("novel", "h", "m"), &Error{Code: "novel"}},
	} {
		f.err = tt.err
		if _, err := c.Status(t.Context()); !errors.Is(err, tt.want) {
			t.Errorf("Backend returned %v: got %v, want %v", tt.err, err, tt.want)
		}
	}
}

// A defect in one request ends that request only.
func TestPanic(t *testing.T) {
	f := newFake()
	f.panics = true
	c := start(t, f)
	if _, err := c.Status(t.Context()); !errors.Is(err, &Error{Code: CodeInternal}) {
		t.Errorf("got %v, want an internal error", err)
	}
	f.panics = false
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the next request: %v", err)
	}
}

// The deadline for the body must not end a request that takes longer.
func TestSlowBackend(t *testing.T) {
	f := newFake()
	f.delay = 300 * time.Millisecond
	h := newHandler(f, slog.New(slog.DiscardHandler), nil, defaultLimits())
	h.limits.body = 20 * time.Millisecond
	srv := httptest.NewServer(h)
	defer srv.Close()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		path, body := "/v1/status", ""
		if method == http.MethodPost {
			path, body = "/v1/keys/use", `{"key":"1f2e3d4c5b6a"}`
		}
		req, _ := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s %s of a slow Backend: %s", method, path, resp.Status)
		}
	}
}

// A client that sends half a body does not hold the handler.
func TestSlowBody(t *testing.T) {
	h := newHandler(newFake(), slog.New(slog.DiscardHandler), nil, defaultLimits())
	h.limits.body = 20 * time.Millisecond
	srv := httptest.NewServer(h)
	defer srv.Close()
	body := make(stuck)
	defer close(body)
	resp, err := srv.Client().Post(srv.URL+"/v1/join", "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("half a body: got %s, want 504", resp.Status)
	}
}

type stuck chan struct{}

func (s stuck) Read([]byte) (int, error) {
	<-s
	return 0, errors.New("closed")
}

func TestListsAreNeverNull(t *testing.T) {
	for _, v := range []any{
		[]Node(nil),
		Status{},
		NetworkDetail{},
		ServiceDetail{},
		LBTable{Services: []LBService{{}}},
		Diff{Networks: []NetworkDiff{{}}},
		[]Network{{}},
	} {
		b, err := json.Marshal(emptyForNil(v))
		if err != nil || strings.Contains(string(b), "null") {
			t.Errorf("%T: %s %v", v, b, err)
		}
	}
}
