//go:build linux

package main

// This file owns what is measured: the cases, the order in which servers take turns,
// and the line that is printed for each.

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"meshd/test/rig"
)

// benchCase is one row of the table.
type benchCase struct {
	name   string
	names  func(*world) []string
	edns   bool
	expect expect
	rate   int  // questions per second; 0: as many as possible
	change int  // changes of the table per second, beside bursts without; only ours can
	shared bool // meshd: the listener on which the client's address determines the network
}

var cases = []benchCase{
	{name: "hit", names: func(w *world) []string { return w.one }, expect: expect{answers: 1}},
	{name: "hit10", names: func(w *world) []string { return w.ten }, edns: true, expect: expect{answers: perTen}},
	{name: "miss", names: func(w *world) []string { return w.unknown }, expect: expect{rcode: dns.RcodeNameError}},
	{name: "change", names: func(w *world) []string { return w.one }, expect: expect{answers: 1}, change: 100},
	{name: "networks", names: func(w *world) []string { return w.spread }, expect: expect{answers: 1}, shared: true},
	{name: "rate5k", names: func(w *world) []string { return w.one }, expect: expect{answers: 1}, rate: 5000},
}

// bench is one run.
type bench struct {
	options
	ctx     context.Context
	world   *world
	servers []*server
}

// contender is a server in a case.
type contender struct {
	*server
	client  *client
	change  int       // changes of the table per second
	qps     []float64 // of each round
	cpu     time.Duration
	answers int
	own     tally // what it did meanwhile, if it is one of ours
}

// run measures all servers in one case, in turns, each other round backwards.
func (b *bench) run(c benchCase) error {
	cs, err := b.contenders(c)
	defer func() {
		for _, k := range cs {
			k.client.close()
		}
	}()
	if err != nil {
		return err
	}
	for round := range b.rounds {
		order := slices.Clone(cs)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, k := range order {
			if err := b.burst(c, k); err != nil {
				return err
			}
			pause(b.ctx, b.gap)
			if b.ctx.Err() != nil {
				return b.ctx.Err()
			}
		}
	}
	report(c, cs)
	if b.dnsperf && c.rate == 0 {
		return b.perf(c, cs)
	}
	return nil
}

// contenders opens the clients and asks every server every name once.
func (b *bench) contenders(c benchCase) (cs []*contender, err error) {
	ps, err := packets(c.names(b.world), c.edns)
	if err != nil {
		return nil, err
	}
	for _, s := range b.servers {
		rates := []int{0}
		if c.change > 0 {
			switch s.name {
			case "echo":
			case "meshd":
				rates = append(rates, c.change)
			default:
				continue
			}
		}
		for _, rate := range rates {
			k := &contender{server: s, change: rate}
			if k.client, err = newClient(b.addr(c, s), ps, b.expect(c, s), b.seed); err != nil {
				return cs, err
			}
			cs = append(cs, k)
		}
		if err := b.warm(cs[len(cs)-1], c, len(ps)); err != nil {
			return cs, err
		}
	}
	return cs, nil
}

// addr is where a server answers the questions of a case.
func (b *bench) addr(c benchCase, s *server) netip.AddrPort {
	if c.shared && s.name == "meshd" {
		return netip.AddrPortFrom(s.addr.Addr(), s.addr.Port()+1)
	}
	return s.addr
}

func (b *bench) expect(c benchCase, s *server) expect {
	e := c.expect
	e.echo = s.name == "echo" || c.name == "miss" && s.name == "coredns" // which answers SERVFAIL
	return e
}

// warm asks every name once, and reports what memory a server of ours then takes.
func (b *bench) warm(k *contender, c benchCase, names int) error {
	for deadline := time.Now().Add(time.Minute); k.client.answered < names && time.Now().Before(deadline); {
		k.client.flood(50 * time.Millisecond)
	}
	k.client.forget()
	if k.name != "meshd" {
		return nil
	}
	t, err := k.setChangeRate(0)
	fmt.Printf("dns_heap server=meshd case=%s names=%d heap_mb=%.1f\n", c.name, names, float64(t.heap)/1e6)
	return err
}

// burst measures one server for a moment.
func (b *bench) burst(c benchCase, k *contender) error {
	before, err := k.setChangeRate(k.change)
	if err != nil {
		return err
	}
	if err := pinned(clientCPU, func() error { return b.flood(c, k) }); err != nil {
		return err
	}
	after, err := k.setChangeRate(0)
	k.own.mallocs += after.mallocs - before.mallocs
	k.own.changes += after.changes - before.changes
	return err
}

// setChangeRate changes the rate of changes of a server of ours and reads its tally.
func (k *contender) setChangeRate(change int) (tally, error) {
	if !k.ours() {
		return tally{}, nil
	}
	return k.command(fmt.Sprintf("change %d", change))
}

// flood runs the client on the calling thread, which is not used again.
func (b *bench) flood(c benchCase, k *contender) error {
	if b.urgent {
		if err := setRealtime(k.cmd.Process.Pid, true); err != nil {
			return err
		}
		defer func() { _ = setRealtime(k.cmd.Process.Pid, false) }()
		if err := priority(0, 1, true); err != nil {
			return err
		}
	}
	cpu, answered := k.server.cpu(), k.client.answered
	var lasted time.Duration
	if c.rate > 0 {
		lasted = k.client.pace(b.options.burst, c.rate)
	} else {
		lasted = k.client.flood(b.options.burst)
	}
	n := k.client.answered - answered
	k.cpu += k.server.cpu() - cpu
	k.qps = append(k.qps, float64(n)/lasted.Seconds())
	k.answers += n
	return nil
}

// report prints a line per server.
func report(c benchCase, cs []*contender) {
	var echo *contender
	for _, k := range cs {
		if k.name == "echo" {
			echo = k
		}
	}
	for _, k := range cs {
		us := float64(k.cpu) / float64(time.Microsecond) / float64(max(k.answers, 1))
		line := fmt.Sprintf("dns server=%s case=%s", k.name, c.name)
		if c.change > 0 && k.name != "echo" {
			line += fmt.Sprintf(" changes_per_s=%d changes=%d", k.change, k.own.changes)
		}
		line += fmt.Sprintf(" qps=%.0f", median(k.qps))
		if echo != nil {
			var ratios []float64
			for i := range k.qps {
				ratios = append(ratios, k.qps[i]/max(echo.qps[i], 1))
			}
			line += fmt.Sprintf(" ratio=%.2f cpu_ratio=%.2f", median(ratios),
				float64(echo.cpu)/float64(max(echo.answers, 1))/1000/us)
		}
		line += fmt.Sprintf(" cpu_us=%.2f p50_us=%.0f p99_us=%.0f", us, k.client.times.quantile(.5),
			k.client.times.quantile(.99))
		if k.ours() {
			line += fmt.Sprintf(" allocs=%.4f", float64(k.own.mallocs)/float64(max(k.answers, 1)))
		}
		fmt.Printf("%s answers=%d lost=%d wrong=%d load1=%s\n", line, k.answers, k.client.lost, k.client.wrong,
			rig.LoadAverage())
	}
}

func median(vs []float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	vs = slices.Sorted(slices.Values(vs))
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
}
