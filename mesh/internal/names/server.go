// Package names answers names on a node: it owns the DNS server's life on the addresses of
// the host, whom it serves there (R8), and what people are told of it. Package resolver
// decides the answers; sandboxes open listeners of their own on the same server.
package names

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"meshd/resolver"
	"meshd/state"
)

// Config configures a Server.
type Config struct {
	// What the configuration of the node says.

	Self     state.NodeID           // the node's name
	Domain   string                 // in which names of the mesh are
	TTL      time.Duration          // of answers
	QueryLog int                    // one question of so many is logged; 0: none
	Addrs    []netip.AddrPort       // of the host, on which names are answered
	Forward  resolver.ForwardConfig // whom to ask for other names
	Clients  func() []netip.Prefix  // whom a person named as clients; nil: the connected subnets; of the moment

	// What it talks to.

	Source     state.Source                                // views of networks
	VIPsUsable func(network string) bool                   // whether the host serves VIPs (R5)
	WhyNoVIPs  func(network string) string                 // why it does not, or ""
	RTT        func(id state.NodeID) (time.Duration, bool) // to another node
	Notes      func(network, service string) []string      // what is hidden of a service
	Condition  func(key, text string)                      // replaces a condition that status shows; "" ends it
	Log        *slog.Logger                                // for what no caller is there to hear
	// View returns the view of a network, or an error for people if it is not here.
	View func(ctx context.Context, network string) (state.View, error)
}

// Server is the DNS server of a node. Its methods are safe for concurrent use.
type Server struct {
	*resolver.Server
	cfg   Config           // fixed
	addrs []netip.AddrPort // where it answers; fixed by Listen
}

// Open makes the server. It listens nowhere.
func Open(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg}
	clients, own := s.clients()
	var err error
	s.Server, err = resolver.New(resolver.Config{
		Source: cfg.Source, Log: cfg.Log, Domain: cfg.Domain, TTL: cfg.TTL, QueryLog: cfg.QueryLog,
		VIPsUsable: cfg.VIPsUsable, WhyNoVIPs: cfg.WhyNoVIPs, RTT: cfg.RTT, Notes: cfg.Notes,
		Clients: clients, HostAddrs: own, LocalTask: s.localTask, Forward: cfg.Forward,
	})
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	return s, nil
}

// ListenOnHost opens the addresses of the host. The node's own networks and tasks must
// be stated by then: without them every client is a stranger, whose names do not exist.
func (s *Server) ListenOnHost() error {
	for _, a := range s.cfg.Addrs {
		b, err := s.Listen(resolver.Listener{Addr: a})
		if err != nil {
			return err
		}
		s.addrs = append(s.addrs, b.Addr())
	}
	return nil
}

// Addrs returns the addresses of the host on which names are answered.
func (s *Server) Addrs() []netip.AddrPort { return s.addrs }

// Troubles says what keeps names of others from being resolved.
func (s *Server) Troubles() (degraded []string) {
	if s.Stats().Listeners == 0 {
		return nil
	}
	up := map[string]int{} // servers that can be asked, per domain
	for _, u := range s.Upstreams() {
		up[u.Domain] += 0
		switch u.State {
		case resolver.UpstreamUp:
			up[u.Domain]++
		case resolver.UpstreamLooping:
			degraded = append(degraded, fmt.Sprintf("dns: upstream %s sends this node's questions back to it: not asked "+
				"until it stops", u.Addr))
		case resolver.UpstreamSelf:
			degraded = append(degraded, fmt.Sprintf("dns: upstream %s is this node itself: not asked; name other servers "+
				"with --upstream", u.Addr))
		case resolver.UpstreamDown:
			degraded = append(degraded, fmt.Sprintf("dns: upstream %s does not answer: asked last", u.Addr))
		}
	}
	if len(up) == 0 {
		degraded = append(degraded, "dns: no upstream is known, so names of others fail: name servers in /etc/resolv.conf "+
			"or with --upstream")
	}
	return degraded
}
