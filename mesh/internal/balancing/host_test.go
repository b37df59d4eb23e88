package balancing

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"meshd/lb"
	"meshd/lb/lbtest"
	"meshd/mesh/control"
	"meshd/mesh/internal/hostchanges"
	"meshd/state"
)

// noViews is a state.Source of a node that takes part in no network.
type noViews struct{}

func (noViews) View(string) state.View                { return nil }
func (noViews) Networks() ([]string, <-chan struct{}) { return nil, nil }

func openHost(t *testing.T, choice string) *Host {
	t.Helper()
	h, err := Open(Config{
		Self: "a", Choice: choice, Forwarding: "off", Source: noViews{}, Changes: hostchanges.New(hostchanges.Saved{}, nil),
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		Known:     func(context.Context, string) error { return nil }, Emit: func(...control.Event) {},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// run runs a Host until the end of the test.
func run(t *testing.T, h *Host) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Without a driver the host serves no VIP, and says why.
func TestHostWithoutADriver(t *testing.T) {
	h := openHost(t, "none")
	run(t, h)
	if h.VIPsUsable() || h.Driver() != "" || h.Why() != "the configuration says lb: none" {
		t.Errorf("%v, %q, %q", h.VIPsUsable(), h.Driver(), h.Why())
	}
	table, err := h.LB(t.Context(), control.LBRequest{})
	if err != nil || table.Driver != "none" || len(table.Services) > 0 {
		t.Errorf("%+v, %v", table, err)
	}
	if _, err := h.LB(t.Context(), control.LBRequest{Sandbox: "web"}); !errors.Is(err, control.ErrNotFound) {
		t.Error(err)
	}
}

// The balancers of sandboxes are shown, verified and forgotten beside the host's.
func TestBalancersOfSandboxes(t *testing.T) {
	h := openHost(t, "none")
	run(t, h)
	one, err := lb.New(lb.Config{
		Source: noViews{}, Drivers: []lb.Driver{&lbtest.Fake{}}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- one.Run(ctx) }()
	h.balancers.add("web", Balanced{Balancer: one})
	reply, err := h.VerifyLB(t.Context(), control.LBVerifyRequest{Sandbox: "web"})
	if err != nil || len(reply.Reports) != 1 || reply.Reports[0].Sandbox != "web" {
		t.Errorf("%+v, %v", reply, err)
	}
	health := h.Health(t.Context())
	if len(health) != 2 || health[0].Sandbox != "" || health[1].Sandbox != "web" || health[1].Driver != "fake" {
		t.Errorf("%+v", health)
	}
	h.balancers.drop("web")
	cancel()
	<-ended
	if names := h.Names(); strings.Join(names, ",") != "" || len(names) != 1 {
		t.Errorf("left are %q", names)
	}
}
