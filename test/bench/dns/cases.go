//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// benchCase is one row of the table.
type benchCase struct {
	name    string
	names   func(*world) []string
	edns    bool
	expect  expect
	rate    int      // questions per second; 0: as many as possible
	change  int      // changes of the table per second
	shared  bool     // meshd: the listener that tells the network by the client
	servers []string // nil: all
}

var cases = []benchCase{
	{name: "hit", names: func(w *world) []string { return w.one }, expect: expect{answers: 1}},
	{name: "hit10", names: func(w *world) []string { return w.ten }, edns: true, expect: expect{answers: perTen}},
	{name: "miss", names: func(w *world) []string { return w.unknown }, expect: expect{rcode: dns.RcodeNameError}},
	{name: "change", names: func(w *world) []string { return w.one }, expect: expect{answers: 1}, change: 100, servers: []string{"echo", "meshd"}},
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
	qps     []float64 // of each round
	cpu     time.Duration
	answers int
	mallocs uint64
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
	return nil
}

// contenders opens the clients and asks every server every name once.
func (b *bench) contenders(c benchCase) (cs []*contender, err error) {
	ps, err := packets(c.names(b.world), c.edns)
	if err != nil {
		return nil, err
	}
	for _, s := range b.servers {
		if c.servers != nil && !slices.Contains(c.servers, s.name) {
			continue
		}
		e, addr := c.expect, s.addr
		e.echo = s.name == "echo" || c.name == "miss" && s.name == "coredns" // which answers SERVFAIL
		if c.shared && s.name == "meshd" {
			addr = netip.AddrPortFrom(addr.Addr(), addr.Port()+1)
		}
		k := &contender{server: s}
		if k.client, err = newClient(addr, ps, e, b.seed); err != nil {
			return cs, err
		}
		cs = append(cs, k)
		deadline := time.Now().Add(time.Minute)
		for k.client.answered < len(ps) && time.Now().Before(deadline) {
			k.client.flood(50 * time.Millisecond)
		}
		if s.name == "meshd" {
			_, heap, err := s.command("mallocs")
			if err != nil {
				return cs, err
			}
			fmt.Printf("dns_heap server=meshd case=%s names=%d heap_mb=%.1f\n", c.name, len(ps), float64(heap)/1e6)
		}
		k.client.answered, k.client.sent, k.client.lost, k.client.wrong, k.client.times = 0, 0, 0, 0, histogram{}
	}
	return cs, nil
}

// burst measures one server for a moment.
func (b *bench) burst(c benchCase, k *contender) error {
	before, err := k.tell(c.change)
	if err != nil {
		return err
	}
	done := make(chan error)
	go func() { done <- b.flood(c, k) }()
	if err := <-done; err != nil {
		return err
	}
	after, err := k.tell(0)
	k.mallocs += after - before
	return err
}

// tell changes the rate of changes of a server of ours and reads its counter.
func (k *contender) tell(change int) (mallocs uint64, err error) {
	if !k.ours() {
		return 0, nil
	}
	mallocs, _, err = k.command(fmt.Sprintf("change %d", change))
	return mallocs, err
}

// flood runs the client on its processor. The thread is not used again.
func (b *bench) flood(c benchCase, k *contender) error {
	runtime.LockOSThread()
	if err := pin(0, clientCPU); err != nil {
		return err
	}
	if b.fifo {
		if err := hurry(k.cmd.Process.Pid, true); err != nil {
			return err
		}
		defer func() { _ = hurry(k.cmd.Process.Pid, false) }()
		if err := priority(0, true); err != nil {
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
		line := fmt.Sprintf("dns server=%s case=%s qps=%.0f", k.name, c.name, median(k.qps))
		if echo != nil {
			var ratios []float64
			for i := range k.qps {
				ratios = append(ratios, k.qps[i]/max(echo.qps[i], 1))
			}
			line += fmt.Sprintf(" ratio=%.2f cpu_ratio=%.2f", median(ratios), float64(echo.cpu)/float64(max(echo.answers, 1))/1000/us)
		}
		line += fmt.Sprintf(" cpu_us=%.2f p50_us=%.0f p99_us=%.0f", us, k.client.times.quantile(.5), k.client.times.quantile(.99))
		if k.ours() {
			line += fmt.Sprintf(" allocs=%.4f", float64(k.mallocs)/float64(max(k.answers, 1)))
		}
		fmt.Printf("%s answers=%d lost=%d wrong=%d load1=%s\n", line, k.answers, k.client.lost, k.client.wrong, load())
	}
}

func median(vs []float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	vs = slices.Sorted(slices.Values(vs))
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
}

// load is the machine's load average, so that a figure from a busy machine is
// known as such.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
