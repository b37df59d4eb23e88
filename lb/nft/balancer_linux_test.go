package nft

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/state"
)

type ticks uint64

func (c *ticks) Tick() uint64     { *c++; return uint64(*c) }
func (c *ticks) Witness(t uint64) { *c = max(*c, ticks(t)) }

// balance runs a balancer with the real driver on the node until stop.
func (r *rig) balance(store *state.Store) (b *lb.Balancer, stop func()) {
	r.t.Helper()
	log := slog.New(slog.DiscardHandler)
	d, err := New(Config{NetNS: r.node.path, Log: log})
	if err != nil {
		r.t.Fatal(err)
	}
	b, err = lb.New(lb.Config{
		Source: store, Drivers: []lb.Driver{d}, Node: lb.Node{Src4: node4, Src6: node6}, Log: log,
		Verify: 50 * time.Millisecond, DrainPoll: 20 * time.Millisecond,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.Run(ctx) }()
	return b, func() { cancel(); <-done }
}

// eventually waits until the status is as it should be.
func (r *rig) eventually(b *lb.Balancer, what string, ok func(lb.Status) bool) {
	r.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	for {
		s, err := b.Status(ctx)
		if err != nil {
			r.t.Fatalf("%s: %v; last %+v", what, err, s)
		}
		if ok(s) {
			return
		}
		<-tick.C
	}
}

func synced(n int) func(lb.Status) bool {
	return func(s lb.Status) bool {
		for _, one := range s.Services {
			if !one.Synced {
				return false
			}
		}
		return s.Ready && len(s.Services) == n
	}
}

// Views to connections: with a change, a restart and a flush by someone else.
func TestBalancerOnARealKernel(t *testing.T) {
	r := newRig(t)
	r.four()
	store := state.NewStore("node", 1, state.DefaultLimits(), new(ticks))
	net := store.Join("net")
	net.SetDef(state.NetworkDef{Name: "net", Subnet4: pool4, Subnet6: pool6, Birth: 1})
	net.SetSynced()
	at := time.Duration(0)
	commit := func(changes ...state.Change) {
		t.Helper()
		if _, err := net.Commit(changes); err != nil {
			t.Fatal(err)
		}
		at += time.Minute
		store.Publish(at)
	}
	task := func(id, addr string) state.Change {
		e := state.Endpoint{ID: id, Service: "web", IP4: netip.MustParseAddr(addr), Weight: 1, Ports: []state.Port{{Number: 80, Proto: state.TCP}}}
		return state.Change{Kind: state.KindEndpoint, Key: id, Group: "web", Body: string(state.AppendEndpoint(nil, &e))}
	}
	claim := state.AppendVIPClaim(nil, state.VIPClaim{Service: "web", VIP4: vip4, Birth: 1})
	commit(state.Change{Kind: state.KindVIP, Key: "web", Body: string(claim)}, task("a", "10.1.0.2"), task("b", "10.1.0.3"))

	b, stop := r.balance(store)
	r.eventually(b, "first", synced(1))
	if !b.Working("net") {
		t.Error("not working")
	}
	equalCounts(t, "two tasks", r.spread(r.peer, "tcp", "10.96.3.7:80", 4), map[string]int{"10.1.0.2:80": 2, "10.1.0.3:80": 2})
	commit(task("c", "10.1.0.4"), state.Change{Kind: state.KindEndpoint, Key: "a", Delete: true})
	r.eventually(b, "change", func(s lb.Status) bool {
		if !synced(1)(s) {
			return false
		}
		_, came := s.Services[0].Actual.Backend(netip.MustParseAddrPort("10.1.0.4:80"))
		return came && len(s.Services[0].Actual.Backends) == 2
	})
	equalCounts(t, "one came, one went", r.spread(r.peer, "tcp", "10.96.3.7:80", 4), map[string]int{"10.1.0.3:80": 2, "10.1.0.4:80": 2})

	stop()
	equalCounts(t, "stopped", r.spread(r.peer, "tcp", "10.96.3.7:80", 4), map[string]int{"10.1.0.3:80": 2, "10.1.0.4:80": 2})
	b, stop = r.balance(store)
	defer stop()
	r.eventually(b, "restart", synced(1))
	if c := b.Counters(); c.Ops[lb.SetBackend] != 0 || c.Ops[lb.DelBackend] != 0 {
		t.Errorf("a restart changed backends: %+v", c)
	}

	vandal, err := openSockets(r.node.path)
	if err != nil {
		t.Fatal(err)
	}
	defer vandal.close()
	vandal.nft.FlushRuleset()
	if err := vandal.nft.Flush(); err != nil {
		t.Fatal(err)
	}
	r.eventually(b, "flush", func(s lb.Status) bool { return s.Counters.Repairs > 0 && synced(1)(s) })
	equalCounts(t, "after a flush", r.spread(r.node, "tcp", "10.96.3.7:80", 4), map[string]int{"10.1.0.3:80": 2, "10.1.0.4:80": 2})
	r.refused("tcp", "10.96.3.7:81")
}

// Rules L7, R5: without privileges the error says what is missing.
func TestProbeWithoutPrivileges(t *testing.T) {
	d, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: this thread alone becomes nobody
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			t.Log(errno)
		}
		got <- d.Probe(context.Background())
	}()
	if err := <-got; !errors.Is(err, lb.ErrUnsupported) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("%v; want it to name CAP_NET_ADMIN", err)
	}
}
