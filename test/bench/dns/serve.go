//go:build linux

package main

// This file owns servers of ours, each in a process of its own.

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
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"meshd/resolver"
	"meshd/state"
)

// serve is a server in a process of its own. It says that it is ready on its
// standard output and obeys commands on its standard input: "change N" changes
// a service N times a second. It answers each with its tally.
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
	var c changer
	switch kind {
	case "echo":
		err = serveEcho(addr)
	case "miekg":
		err = serveMiekg(addr, w)
	case "meshd":
		err = serveMeshd(addr, w, &c)
	default:
		err = fmt.Errorf("no server %q", kind)
	}
	if err != nil {
		return err
	}
	runtime.GC()
	fmt.Println("ready")
	obey(&c)
	return nil
}

// tally is what a server of ours reports of itself: allocations and changes of
// the table so far, and the heap in use.
type tally struct{ mallocs, changes, heap uint64 }

func obey(c *changer) {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var n int
		if _, err := fmt.Sscanf(in.Text(), "change %d", &n); err == nil && c.rates != nil {
			c.rates <- n
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Println(m.Mallocs, c.changes.Load(), m.HeapAlloc)
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
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5},
				A:   addrs[i].AsSlice(),
			})
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
func serveMeshd(addr netip.AddrPort, w *world, c *changer) error {
	store, err := w.store()
	if err != nil {
		return err
	}
	s, err := resolver.New(resolver.Config{Source: store, Forward: resolver.ForwardConfig{Disabled: true}})
	if err != nil {
		return err
	}
	shared := netip.AddrPortFrom(addr.Addr(), addr.Port()+1)
	for _, l := range []resolver.Listener{{Addr: addr, Networks: []string{"net1"}}, {Addr: shared}} {
		if _, err := s.Listen(l); err != nil {
			_ = s.Close(context.Background())
			return err
		}
	}
	c.store, c.services, c.rates = store, len(w.one), make(chan int)
	go c.run()
	return nil
}

// changer owns the store from then on: it replaces the task of one service
// after the other, so many times a second.
type changer struct {
	store    *state.Store
	services int
	rates    chan int
	changes  atomic.Uint64
}

func (c *changer) run() {
	tick := time.NewTicker(time.Hour)
	var rate, done int
	var since time.Time
	for {
		select {
		case rate = <-c.rates:
			if tick.Stop(); rate > 0 {
				since, done = time.Now(), 0
				tick.Reset(time.Second / time.Duration(rate))
			}
		case <-tick.C: // on a busy processor late, and then several are due
			for due := int(time.Since(since).Seconds() * float64(rate)); done < due; done++ {
				c.change()
			}
		}
	}
}

func (c *changer) change() {
	k := int(c.changes.Add(1))
	i := k * 7919 % c.services
	if _, err := c.store.Table("net1").Commit(service(fmt.Sprintf("svc%05d", i), i, k)); err != nil {
		fatal(err)
	}
	c.store.Publish(time.Duration(k))
}
