package registry_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/internal/registry"
	"meshd/mesh/internal/registry/registrytest"
	"meshd/state"
)

// life is a registry in one life of a node that is alone in its mesh.
type life struct {
	*registry.Registry
	mesh      *registrytest.Mesh
	disk      *registrytest.Disk
	peers     registrytest.Peers
	balancing registrytest.Balancing
	idle      atomic.Uint64 // rounds in which nothing had changed
	stop      func()
}

// start begins a life with what the disk holds.
func start(t *testing.T, disk *registrytest.Disk, incarnation uint64) *life {
	t.Helper()
	s, leftOut, err := registry.Read(disk, registry.DefaultBounds(), time.Now())
	if err != nil || len(leftOut) > 0 {
		t.Fatal(err, leftOut)
	}
	l := &life{mesh: registrytest.NewMesh("a", incarnation), disk: disk}
	l.Registry = registry.New(registry.Config{
		Self: "a", Domain: "mesh.internal", Bounds: registry.DefaultBounds,
		Info: func() state.NodeInfo { return state.NodeInfo{Boot: 7} },
		Looked: func(defs *state.Definitions, _ []string) {
			if defs == nil {
				l.idle.Add(1)
			}
		},
		Store: disk, Publisher: l.mesh, Peers: &l.peers, Balancing: &l.balancing, Log: slog.New(slog.DiscardHandler),
	}, s)
	if err := l.mesh.Do(t.Context(), l.Restore); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Claim(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = l.Run(ctx)
	}()
	l.stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(l.stop)
	return l
}

func (l *life) network(t *testing.T) {
	t.Helper()
	req := control.CreateNetwork{Name: "net", Subnet: "10.96.0.0/16"}
	if _, err := l.Networks().CreateNetwork(t.Context(), req); err != nil {
		t.Fatal(err)
	}
}

func (l *life) add(t *testing.T, id, ip string) (control.TaskAdded, error) {
	t.Helper()
	return l.Tasks().AddTask(t.Context(), control.AddTask{Network: "net", Service: "web", ID: id, IPs: []string{ip}})
}

// eventually waits until check returns "".
func eventually(t *testing.T, check func() string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		text := check()
		if text == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(text)
		}
	}
}

// A registration is on disk when it is acknowledged, and so is, soon, the claim that
// follows: the next life states both again (N2, V2).
func TestLivesShareTheirRegistrations(t *testing.T) {
	disk := &registrytest.Disk{}
	first := start(t, disk, 1)
	first.network(t)
	added, err := first.add(t, "t1", "10.1.0.1")
	if err != nil || len(added.VIPs) != 1 {
		t.Fatalf("%+v, %v", added, err)
	}
	if !strings.Contains(disk.Text(), `x00t1"`) {
		t.Error("acknowledged, and not on disk")
	}
	eventually(t, func() string {
		if strings.Contains(disk.Text(), `"vip"`) {
			return ""
		}
		return "the claim is not on disk"
	})
	first.stop()
	second := start(t, disk, 2)
	s, err := second.Services().Service(t.Context(), control.ServiceRef{Network: "net", Name: "web"})
	if err != nil || len(s.VIPs) != 1 || s.VIPs[0] != added.VIPs[0] || len(s.TaskList) != 1 {
		t.Errorf("%+v, %v; it had %v", s, err, added.VIPs)
	}
}

// What a disk does not take is refused, and stated nowhere.
func TestFailingDiskRefusesRegistrations(t *testing.T) {
	disk := &registrytest.Disk{}
	l := start(t, disk, 1)
	l.network(t)
	disk.Fail(errors.New("no space left on device"))
	if _, err := l.add(t, "t1", "10.1.0.1"); !errors.Is(err, control.ErrUnavailable) {
		t.Error(err)
	}
	if l.mesh.Source().View("net").Task("t1") != nil {
		t.Error("it is stated")
	}
	disk.Fail(nil)
	if _, err := l.add(t, "t1", "10.1.0.1"); err != nil {
		t.Error(err)
	}
}

// The last task of a service leaves a reservation: the next one gets its address (V2).
func TestReservationKeepsTheAddress(t *testing.T) {
	l := start(t, &registrytest.Disk{}, 1)
	l.network(t)
	first, err := l.add(t, "t1", "10.1.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Tasks().RemoveTask(t.Context(), control.TaskRef{ID: "t1"}); err != nil {
		t.Fatal(err)
	}
	second, err := l.add(t, "t2", "10.1.0.2")
	if err != nil || len(second.VIPs) != 1 || second.VIPs[0] != first.VIPs[0] {
		t.Errorf("%v, then %v, %v", first.VIPs, second.VIPs, err)
	}
}

// A pool that this host or another one cannot serve is refused, with who says so (L9).
func TestPoolsAreAskedFor(t *testing.T) {
	l := start(t, &registrytest.Disk{}, 1)
	req := control.CreateNetwork{Name: "net", Subnet: "10.96.0.0/16"}
	l.balancing.Trouble = "10.96.0.0/16: eth0 has an address in it"
	if _, err := l.Networks().CreateNetwork(t.Context(), req); !errors.Is(err, control.ErrConflict) ||
		!strings.Contains(err.Error(), "eth0") {
		t.Error(err)
	}
	l.balancing.Trouble = ""
	l.peers.Answers = map[string]registry.PoolsAnswer{"b": {Against: "10.96.0.0/16: a route"}, "c": {}}
	if _, err := l.Networks().CreateNetwork(t.Context(), req); !errors.Is(err, control.ErrConflict) ||
		!strings.Contains(err.Error(), "node b: 10.96.0.0/16") {
		t.Error(err)
	}
	l.peers.Answers = nil
	l.network(t)
}

// A sandbox makes the node take part in a network that nothing else needs (G6).
func TestHoldKeepsANetwork(t *testing.T) {
	l := start(t, &registrytest.Disk{}, 1)
	if err := l.Hold(t.Context(), []string{"net"}); !errors.Is(err, control.ErrNotFound) {
		t.Error(err)
	}
	l.network(t)
	if err := l.Hold(t.Context(), []string{"net"}); err != nil {
		t.Fatal(err)
	}
	if err := l.Networks().RemoveNetwork(t.Context(), "net"); !errors.Is(err, control.ErrRefused) {
		t.Errorf("removed while it is held: %v", err)
	}
	l.Release(t.Context(), []string{"net"})
	if err := l.Networks().RemoveNetwork(t.Context(), "net"); err != nil {
		t.Error(err)
	}
}

// A registry whose node has stopped says so.
func TestStoppedMeshRefuses(t *testing.T) {
	l := start(t, &registrytest.Disk{}, 1)
	l.network(t)
	l.mesh.Stop()
	if _, err := l.add(t, "t1", "10.1.0.1"); !errors.Is(err, registry.ErrStopped) {
		t.Error(err)
	}
}
