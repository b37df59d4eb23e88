package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	"meshd/mesh/control"
	"meshd/mesh/internal/store/storetest"
	"meshd/state"
)

// fakeMesh is a mesh of services that call each other without a network.
type fakeMesh struct {
	services map[string]*Service
	silent   map[string]bool // nodes that do not answer
	gone     []control.Node  // nodes that are dead
}

// fakeCaller is what one node sees of the mesh.
type fakeCaller struct {
	m    *fakeMesh
	self string
}

func (c fakeCaller) Nodes(context.Context) ([]control.Node, error) {
	out := slices.Clone(c.m.gone)
	for name := range c.m.services {
		out = append(out, control.Node{Name: name, State: control.NodeAlive, Self: name == c.self, Proven: true})
	}
	return out, nil
}

func (c fakeCaller) Call(_ context.Context, to state.NodeID, op string, body []byte) ([]byte, error) {
	if c.m.silent[string(to)] || op != CallName {
		return nil, context.DeadlineExceeded
	}
	return c.m.services[string(to)].Answer(state.NodeID(c.self), body), nil
}

// newFakeMesh has n nodes, a, b, c …, that all start with one key, and their disks.
func newFakeMesh(t *testing.T, n int) (*fakeMesh, []*storetest.Dir) {
	t.Helper()
	m := &fakeMesh{services: map[string]*Service{}, silent: map[string]bool{}}
	disks := make([]*storetest.Dir, n)
	for i := range n {
		disks[i] = new(storetest.Dir)
		k, err := Open(disks[i], [][]byte{testKey(1)})
		if err != nil {
			t.Fatal(err)
		}
		ring, err := memberlist.NewKeyring([][]byte{testKey(1)}, testKey(1))
		if err != nil {
			t.Fatal(err)
		}
		name := string(rune('a' + i))
		m.services[name] = NewService(k, ring, fakeCaller{m, name}, name, slog.New(slog.DiscardHandler))
	}
	return m, disks
}

// A rotation takes three commands on any node, and each counts the nodes that did it.
func TestRotation(t *testing.T) {
	m, disks := newFakeMesh(t, 4)
	a, ctx := m.services["a"], t.Context()
	former, next := control.KeyID(testKey(1)), control.KeyID(testKey(2))
	r, err := a.InstallKey(ctx, control.KeyRequest{Key: base64Of(2)})
	if err != nil || r.OK != 4 || r.Total != 4 {
		t.Fatalf("install: %+v, %v", r, err)
	}
	if _, err := a.RemoveKey(ctx, control.KeyRequest{Key: former}); err == nil {
		t.Error("the key that all encrypt with was removed")
	}
	if r, err = a.UseKey(ctx, control.KeyRequest{Key: next}); err != nil || r.OK != 4 {
		t.Fatalf("use: %+v, %v", r, err)
	}
	if r, err = m.services["b"].RemoveKey(ctx, control.KeyRequest{Key: former}); err != nil || r.OK != 4 {
		t.Fatalf("remove: %+v, %v", r, err)
	}
	want := []control.KeyCount{{ID: next, Nodes: 4, Primary: 4}}
	if r, err = a.Keys(ctx); err != nil || !slices.Equal(r.Keys, want) {
		t.Errorf("in the end: %+v, %v", r, err)
	}
	for i, d := range disks {
		if d.Content(FileName) == nil || d.Writes() != 3 {
			t.Errorf("node %d wrote %d times: %s", i, d.Writes(), d.Content(FileName))
		}
	}
}

// A key is removed only if all nodes answer and none is away, unless somebody insists.
func TestRemovalLocksNobodyOut(t *testing.T) {
	m, _ := newFakeMesh(t, 3)
	a, ctx := m.services["a"], t.Context()
	if _, err := a.InstallKey(ctx, control.KeyRequest{Key: base64Of(2)}); err != nil {
		t.Fatal(err)
	}
	unused := control.KeyRequest{Key: control.KeyID(testKey(2))}
	m.silent["c"] = true
	if _, err := a.RemoveKey(ctx, unused); err == nil || !strings.Contains(err.Error(), "would be locked out: c") {
		t.Errorf("with a silent node: %v", err)
	}
	delete(m.silent, "c")
	m.gone = []control.Node{{Name: "away", State: control.NodeDead, Proven: true}}
	if _, err := a.RemoveKey(ctx, unused); err != nil {
		t.Errorf("with a node that died long ago: %v", err)
	}
	if _, err := a.RemoveKey(ctx, unused); err == nil || !strings.Contains(err.Error(), "no node has it") {
		t.Errorf("a key that no node has: %v", err)
	}
}

// A change that cannot be saved is told to whoever asked for it.
func TestFailingDisk(t *testing.T) {
	m, disks := newFakeMesh(t, 2)
	disks[1].Fail(errors.New("no space left"))
	r, err := m.services["a"].InstallKey(t.Context(), control.KeyRequest{Key: base64Of(2)})
	if err != nil || r.OK != 1 || !strings.Contains(fmt.Sprint(r.Results), "no space left") {
		t.Errorf("%+v, %v", r, err)
	}
}

// Without a keyring every command is refused.
func TestUnencrypted(t *testing.T) {
	k, err := Open(new(storetest.Dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := NewService(k, nil, fakeCaller{&fakeMesh{}, "a"}, "a", slog.New(slog.DiscardHandler))
	if _, err := s.Keys(t.Context()); err == nil || !strings.Contains(err.Error(), "not encrypted") {
		t.Error(err)
	}
	if w := k.Warnings(false, "10.0.0.1:7946", ""); len(w) != 1 || !strings.Contains(w[0], "meshctl keygen") {
		t.Errorf("warnings: %q", w)
	}
	if w := k.Warnings(true, "10.0.0.1:7946", ""); len(w) != 1 || !strings.Contains(w[0], "reaches 10.0.0.1:7946") {
		t.Errorf("warnings: %q", w)
	}
}
