package names

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// subnetsEvery is how often the host's subnets are read again: for so long a
	// container on a new bridge may be a stranger.
	subnetsEvery = 2 * time.Second
	// strangerNotice is how long status tells of a client that was refused.
	strangerNotice = 10 * time.Minute
)

// hostAddresses returns the host's addresses and their subnets: no router is between the
// host and a client in one of them. A subnet that is most of all addresses says nothing
// about its clients and is left out.
func hostAddresses() (subnets []netip.Prefix, own []netip.Addr, err error) {
	addrs, err := net.InterfaceAddrs()
	subnets = []netip.Prefix{}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		own = append(own, p.Addr())
		if p.Bits() >= 8 {
			subnets = append(subnets, p.Masked())
		}
	}
	slices.SortFunc(subnets, netip.Prefix.Compare)
	return slices.Compact(subnets), own, err
}

// clients returns whom DNS serves besides the host's tasks (R8): those that a
// person named, else the connected subnets; and the host itself.
func (s *Server) clients() (clients []netip.Prefix, own []netip.Addr) {
	clients, own, err := hostAddresses()
	named, trouble := s.cfg.Clients(), ""
	if err != nil {
		trouble = fmt.Sprintf("dns: the host's addresses cannot be read (%v): its own programs are answered at 127.0.0.1 "+
			"only", err)
		if named == nil {
			trouble = fmt.Sprintf("dns: the host's subnets cannot be read (%v): only the host itself and its tasks are "+
				"answered; name others with --dns-clients", err)
		}
	}
	s.cfg.Condition("dns-clients", trouble)
	if named != nil {
		clients = named
	}
	return clients, own
}

// RefreshClients makes the server serve the clients of the moment.
func (s *Server) RefreshClients() {
	if len(s.cfg.Addrs) > 0 {
		s.SetClients(s.clients())
	}
}

// WatchClients keeps the clients in step with the host's addresses until ctx ends.
func (s *Server) WatchClients(ctx context.Context) error {
	if len(s.cfg.Addrs) == 0 {
		return nil
	}
	tick := time.NewTicker(subnetsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.SetClients(s.clients())
		}
	}
}

// localTask reports whether a task that is registered here has the address.
func (s *Server) localTask(a netip.Addr) bool {
	source := s.cfg.Source
	names, _ := source.Networks()
	for _, name := range names {
		if v := source.View(name); v != nil {
			if e := v.ByIP(a).Endpoint; e != nil && e.Owner() == s.cfg.Self {
				return true
			}
		}
	}
	return false
}

// Warnings says which client was refused in the last minutes.
func (s *Server) Warnings() []string {
	last, ok := s.LastStranger()
	if !ok || time.Since(last.At) > strangerNotice {
		return nil
	}
	return []string{fmt.Sprintf("dns: %d questions and connections of clients that are not served were refused so far, "+
		"the last from %s; if it should be served, name its subnet with --dns-clients", last.Refused, last.Addr)}
}
