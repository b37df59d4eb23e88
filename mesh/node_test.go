package mesh_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshd/mesh"
	"meshd/mesh/config"
	"meshd/mesh/control"
)

// node is a running node of a test, on loopback, without a load balancer.
type node struct {
	*mesh.Node
	t    testing.TB
	cfg  config.Config
	stop func()

	wantErr string // of Run
}

func start(t testing.TB, cfg config.Config) *node {
	t.Helper()
	n, err := tryStart(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func tryStart(t testing.TB, cfg config.Config) (*node, error) {
	t.Helper()
	cfg.LB, cfg.Profile = "none", "local"
	if cfg.Bind == "" {
		cfg.Bind = "127.0.0.1:0"
	}
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(t.TempDir(), "s")
	}
	m, err := mesh.New(cfg, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan error, 1)
	go func() { finished <- m.Run(ctx) }()
	n := &node{Node: m, t: t, cfg: cfg}
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		err := <-finished
		if n.wantErr != "" && (err == nil || !strings.Contains(err.Error(), n.wantErr)) || n.wantErr == "" && err != nil {
			t.Errorf("ended with %v, want %q", err, n.wantErr)
		}
	}
	t.Cleanup(n.stop)
	return n, nil
}

func (n *node) addr() string {
	s, err := n.Status(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return s.Bind
}

// eventually polls until check returns nil.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) network(name, subnet string) {
	n.t.Helper()
	_, err := n.CreateNetwork(n.t.Context(), control.CreateNetwork{Name: name, Subnet: subnet})
	n.must(err)
}

func (n *node) task(network, service, id, ip string) control.TaskAdded {
	n.t.Helper()
	a, err := n.AddTask(n.t.Context(), control.AddTask{
		Network: network, Service: service, ID: id, IPs: []string{ip},
		Ports: []string{"80"},
	})
	n.must(err)
	return a
}

func (n *node) tasks(network, service string) []string {
	ts, err := n.ServiceTasks(n.t.Context(), control.ServiceRef{Network: network, Name: service})
	if err != nil {
		return nil
	}
	var ids []string
	for _, t := range ts {
		ids = append(ids, t.ID+"@"+t.Node)
	}
	return ids
}

func wantTasks(t *testing.T, n *node, network, service, want string) {
	t.Helper()
	eventually(t, func() error {
		if got := strings.Join(n.tasks(network, service), " "); got != want {
			return errors.New(n.cfg.Node + " has tasks [" + got + "], want [" + want + "]")
		}
		return nil
	})
}

// task2 registers a task as soon as the network is known here.
func (n *node) task2(network, service, id, ip string) {
	n.t.Helper()
	eventually(n.t, func() error {
		_, err := n.AddTask(n.t.Context(), control.AddTask{
			Network: network, Service: service, ID: id, IPs: []string{ip},
			Ports: []string{"80"},
		})
		return err
	})
}

// await waits until each of the types was seen, in any order.
func await(ctx context.Context, t *testing.T, events <-chan control.Event, want ...control.EventType) {
	t.Helper()
	for len(want) > 0 {
		select {
		case e := <-events:
			if i := indexOf(want, e.Type); i >= 0 {
				want = append(want[:i], want[i+1:]...)
			}
		case <-ctx.Done():
			t.Fatalf("not seen: %v", want)
		}
	}
}

func indexOf(ts []control.EventType, t control.EventType) int {
	for i, x := range ts {
		if x == t {
			return i
		}
	}
	return -1
}
