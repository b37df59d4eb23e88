package names

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/resolver"
	"meshd/state"
)

// noViews is a state.Source of a node that takes part in no network.
type noViews struct{}

func (noViews) View(string) state.View                { return nil }
func (noViews) Networks() ([]string, <-chan struct{}) { return nil, nil }

func open(t *testing.T, named []netip.Prefix) *Server {
	t.Helper()
	s, err := Open(Config{
		Self: "a", Domain: "mesh.internal", Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
		Forward: resolver.ForwardConfig{Upstreams: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}},
		Clients: func() []netip.Prefix { return named }, Source: noViews{},
		VIPsUsable: func(string) bool { return false }, WhyNoVIPs: func(string) string { return "" },
		RTT:   func(state.NodeID) (time.Duration, bool) { return 0, false },
		Notes: func(string, string) []string { return nil },
		View: func(context.Context, string) (state.View, error) {
			return nil, control.Refuse(control.CodeNotFound, "", "no such network")
		},
		Condition: func(string, string) {}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// Clients that a person named replace the subnets of the host.
func TestNamedClients(t *testing.T) {
	named := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	clients, own := open(t, named).clients()
	if len(clients) != 1 || clients[0] != named[0] || len(own) == 0 {
		t.Errorf("%v, %v", clients, own)
	}
	if clients, _ := open(t, nil).clients(); len(clients) == 0 || clients[0] == named[0] {
		t.Errorf("without names: %v", clients)
	}
}

// The server answers on the addresses that it was given, and has nothing to complain of.
func TestListenOnHost(t *testing.T) {
	s := open(t, nil)
	if s.Troubles() != nil {
		t.Error("it complains though nobody can ask")
	}
	if err := s.ListenOnHost(); err != nil {
		t.Fatal(err)
	}
	if addrs := s.Addrs(); len(addrs) != 1 || addrs[0].Port() == 0 {
		t.Errorf("%v", addrs)
	}
	if text := strings.Join(append(s.Troubles(), s.Warnings()...), "; "); text != "" {
		t.Error(text)
	}
}

// A network that is not here is refused.
func TestResolveInAnUnknownNetwork(t *testing.T) {
	_, err := open(t, nil).Resolve(t.Context(), control.ResolveRequest{Network: "net", Name: "web"})
	if !errors.Is(err, control.ErrNotFound) {
		t.Error(err)
	}
}
