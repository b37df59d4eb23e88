//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"meshd/resolver"
	"meshd/state"
)

// serve is a server in a process of its own. It tells that it is ready on its
// standard output and obeys commands on its standard input: "mallocs" tells the
// number of allocations so far, "change N" changes a service N times a second.
func serve(kind string, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("use: serve KIND ADDR NAMES")
	}
	names, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	w := newWorld(names)
	change := func(int) {}
	switch kind {
	case "echo":
		err = serveEcho(addr)
	case "miekg":
		err = serveMiekg(addr, w)
	case "meshd":
		change, err = serveMeshd(addr, w)
	default:
		err = fmt.Errorf("no server %q", kind)
	}
	if err != nil {
		return err
	}
	runtime.GC()
	fmt.Println("ready")
	obey(change)
	return nil
}

func obey(change func(int)) {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var n int
		if _, err := fmt.Sscanf(in.Text(), "change %d", &n); err == nil {
			change(n)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Println(m.Mallocs, m.HeapAlloc)
	}
}

// serveMiekg is the least that miekg/dns needs to answer: a map of names.
func serveMiekg(addr netip.AddrPort, w *world) error {
	known := map[string][]netip.Addr{}
	w.each(func(name string, addrs ...netip.Addr) { known[name] = addrs })
	p, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	soa, _ := dns.NewRR(domain + " 2 IN SOA ns." + domain + " hostmaster." + domain + " 1 3600 600 86400 2")
	handler := dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative, m.Compress = true, true
		name := q.Question[0].Name
		addrs := known[name]
		for _, i := range rand.Perm(len(addrs)) {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: addrs[i].AsSlice()})
		}
		if addrs == nil {
			m.Rcode, m.Ns = dns.RcodeNameError, []dns.RR{soa}
		}
		if q.IsEdns0() != nil {
			m.SetEdns0(1232, false)
		}
		_ = rw.WriteMsg(m)
	})
	go func() { fatal((&dns.Server{PacketConn: p, Handler: handler}).ActivateAndServe()) }()
	return nil
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "dns: serve:", err)
	os.Exit(1)
}

// serveMeshd answers on addr for net1, and one port further for all networks.
func serveMeshd(addr netip.AddrPort, w *world) (change func(int), err error) {
	store, err := w.store()
	if err != nil {
		return nil, err
	}
	s, err := resolver.New(resolver.Config{Source: store, Forward: resolver.ForwardConfig{Disabled: true}})
	if err != nil {
		return nil, err
	}
	shared := netip.AddrPortFrom(addr.Addr(), addr.Port()+1)
	for _, l := range []resolver.Listener{{Addr: addr, Networks: []string{"net1"}}, {Addr: shared}} {
		if _, err := s.Listen(l); err != nil {
			_ = s.Close(context.Background())
			return nil, err
		}
	}
	rates := make(chan int)
	go changes(store, rates, len(w.one))
	return func(n int) { rates <- n }, nil
}

// changes owns the store from now on: it replaces the task of one service after
// the other, so many times a second.
func changes(store *state.Store, rates <-chan int, services int) {
	table := store.Table("net1")
	tick := time.NewTicker(time.Hour)
	for k := 0; ; {
		select {
		case n := <-rates:
			if tick.Stop(); n > 0 {
				tick.Reset(time.Second / time.Duration(n))
			}
		case <-tick.C:
			k++
			i := k * 7919 % services
			if _, err := table.Commit(service(fmt.Sprintf("svc%05d", i), i, k)); err != nil {
				fatal(err)
			}
			store.Publish(time.Duration(k))
		}
	}
}
