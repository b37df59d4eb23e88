package dockertest

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"meshd/mesh/source/docker"
)

// Container is one container.
type Container struct {
	// What it is.

	// ID is made by Start.
	ID string
	// Name is without a slash.
	Name string
	// Labels are its labels.
	Labels map[string]string

	// Where it is reached.

	// Mode is its network mode; empty: bridge.
	Mode container.NetworkMode
	// Networks are its addresses by network.
	Networks map[string]netip.Addr
	// Aliases are its names in all networks.
	Aliases []string
	// Ports are those that it publishes.
	Ports network.PortMap

	// How it is.

	// State is running after Start.
	State container.ContainerState
	// Health is what its check has found; empty: it has none.
	Health container.HealthStatus
	// PID is that of its process.
	PID int
	// Started is when it was last started.
	Started time.Time
}

// Start makes a container, or starts one that has ended, and returns its id.
func (e *Engine) Start(c Container) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.ID == "" {
		e.made++
		c.ID = fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, e.made)))
	}
	c.State, c.Started, c.PID = container.StateRunning, time.Now(), e.Processes.start(time.Now())
	e.containers[c.ID] = &c
	for name := range c.Networks {
		e.emit(events.NetworkEventType, events.ActionConnect, &c, map[string]string{"container": c.ID, "name": name})
	}
	e.emit(events.ContainerEventType, events.ActionStart, &c, nil)
	return c.ID
}

// Again starts a container that has ended.
func (e *Engine) Again(id string) {
	e.mu.Lock()
	c := e.find(id)
	e.mu.Unlock()
	e.Start(*c)
}

func (c *Container) endpoints() map[string]*network.EndpointSettings {
	all := map[string]*network.EndpointSettings{}
	for name, a := range c.Networks {
		s := &network.EndpointSettings{Aliases: c.Aliases}
		if a.Is4() {
			s.IPAddress = a
		} else {
			s.GlobalIPv6Address = a
		}
		all[name] = s
	}
	return all
}

func (c *Container) summary(podman bool) container.Summary {
	s := container.Summary{
		ID: c.ID, Names: []string{"/" + c.Name}, Labels: c.Labels, State: c.State, Status: "Up 2 minutes",
		NetworkSettings: &container.NetworkSettingsSummary{Networks: c.endpoints()},
	}
	if c.Health != "" && !podman {
		s.Status += " (" + string(c.Health) + ")"
	}
	return s
}

func (c *Container) inspect() container.InspectResponse {
	s := &container.State{
		Status: c.State, Running: c.State == container.StateRunning || c.State == container.StatePaused,
		Paused: c.State == container.StatePaused, Restarting: c.State == container.StateRestarting, Pid: c.PID,
		StartedAt: c.Started.UTC().Format(time.RFC3339Nano),
	}
	if c.Health != "" {
		s.Health = &container.Health{Status: c.Health}
	}
	return container.InspectResponse{
		ID: c.ID, Name: "/" + c.Name, State: s, HostConfig: &container.HostConfig{NetworkMode: c.Mode},
		Config:          &container.Config{Labels: c.Labels, Hostname: c.ID[:12]},
		NetworkSettings: &container.NetworkSettings{Ports: c.Ports, Networks: c.endpoints()},
	}
}

// Processes are processes that only tests know.
type Processes struct {
	// Invisible says that none of them is seen, as from another process namespace. It is
	// set before they are used.
	Invisible bool

	mu    sync.Mutex // guards what follows
	last  int
	alive map[int]*process
}

type process struct {
	started time.Time
	died    chan struct{}
	sure    bool
}

func (p *Processes) start(now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	p.alive[p.last] = &process{now, make(chan struct{}), true}
	return p.last
}

func (p *Processes) end(pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.alive[pid]; one != nil {
		close(one.died)
		delete(p.alive, pid)
	}
}

// Open implements docker.Config.Processes.
func (p *Processes) Open(pid int, started time.Time) (docker.Process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.alive[pid]
	if one == nil || p.Invisible {
		return nil, os.ErrProcessDone
	}
	watched := *one
	watched.sure = one.started.Equal(started)
	return &watched, nil
}

func (p *process) Died() <-chan struct{} { return p.died }
func (p *process) Sure() bool            { return p.sure }
func (p *process) Close() error          { return nil }
