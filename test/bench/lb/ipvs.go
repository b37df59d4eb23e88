//go:build linux

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	mobyipvs "github.com/moby/ipvs"

	"meshd/lb/ipvs"
)

// ipvs measures three writers of the same table, each in a namespace of its
// own: the kernel remembers destinations that were deleted, and looks through
// them all whenever one is added.
func (b *bench) ipvs() error {
	sizes := []int{1000, 10000}
	if b.quick {
		sizes = []int{100, 1000}
	}
	const backends = 10
	for _, services := range sizes {
		err := b.repeat(
			func(n *namespace) error { return b.writerRun("raw", newRawWriter, n, services, backends) },
			func(n *namespace) error { return b.ipvsRun(n, services, backends) })
		if err == nil { // moby/ipvs takes long
			err = b.fresh(func(n *namespace) error { return b.writerRun("moby", newMobyWriter, n, services, backends) })
		}
		if err != nil {
			return fmt.Errorf("%d services: %w", services, err)
		}
		b.print()
	}
	return nil
}

func (b *bench) ipvsRun(n *namespace, services, backends int) error {
	d, err := ipvs.New(ipvs.Config{NetNS: n.path(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer d.Close()
	return b.driverRun(d, services, backends)
}

// writer programs IPVS without our driver.
type writer interface {
	load(services, backends int) error
	// move adds one endpoint of a service and deletes another.
	move(service, add, del int) error
	// verify reads back everything that was loaded.
	verify(services, backends int) error
	close()
}

func (b *bench) writerRun(path string, open func(*namespace) (writer, error), n *namespace, services,
	backends int,
) error {
	k, err := open(n)
	if err != nil {
		return err
	}
	defer k.close()
	w := what{"ipvs", path, "cold", services, backends}
	c, err := measure(func() error { return k.load(services, backends) })
	if err != nil {
		return fmt.Errorf("%s: cold load: %w", path, err)
	}
	b.report.add(w, c)
	w.op = "change"
	c, err = measureEach(b.changes(), func(i int) error {
		if i%2 == 0 {
			return k.move(services/2, backends, 0)
		}
		return k.move(services/2, 0, backends)
	})
	if err != nil {
		return fmt.Errorf("change: %w", err)
	}
	b.report.add(w, c, "change=move")
	w.op = "verify"
	if c, err = measure(func() error { return k.verify(services, backends) }); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	b.report.add(w, c, "verify=full")
	return nil
}

// mobyWriter is moby/ipvs as its users call it: one call, and one round trip,
// per service and per backend.
type mobyWriter struct{ h *mobyipvs.Handle }

func newMobyWriter(n *namespace) (writer, error) {
	h, err := mobyipvs.New(n.path())
	if err != nil {
		return nil, err
	}
	return mobyWriter{h}, nil
}

func (m mobyWriter) close() { m.h.Close() }

func mobyService(i int) *mobyipvs.Service {
	k := key(i)
	return &mobyipvs.Service{
		AddressFamily: 2, Address: net.IP(k.VIP.AsSlice()), Protocol: uint16(k.Proto), Port: k.Port,
		SchedName: "wrr", Netmask: 0xffffffff,
	}
}

func mobyDestination(i, j int) *mobyipvs.Destination {
	d := backend(i, j)
	return &mobyipvs.Destination{
		AddressFamily: 2, Address: net.IP(d.Addr.Addr().AsSlice()), Port: d.Addr.Port(), Weight: int(d.Weight),
	}
}

func (m mobyWriter) load(services, backends int) error {
	for i := range services {
		s := mobyService(i)
		if err := m.h.NewService(s); err != nil {
			return err
		}
		for j := range backends {
			if err := m.h.NewDestination(s, mobyDestination(i, j)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m mobyWriter) move(i, add, del int) error {
	s := mobyService(i)
	return errors.Join(m.h.NewDestination(s, mobyDestination(i, add)), m.h.DelDestination(s, mobyDestination(i, del)))
}

func (m mobyWriter) verify(services, backends int) error {
	list, err := m.h.GetServices()
	if err != nil {
		return err
	}
	found := 0
	for _, s := range list {
		dests, err := m.h.GetDestinations(s)
		if err != nil {
			return err
		}
		found += len(dests)
	}
	if len(list) != services || found != services*backends {
		return fmt.Errorf("%d services with %d backends, want %d with %d", len(list), found, services, services*backends)
	}
	return nil
}
