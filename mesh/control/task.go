package control

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"meshd/state"
)

// This file has all that the API knows of a task: how one is asked for, what is
// checked, and how it is shown. A new field of a task is added here.

// AddTask registers a task. The names are those of the flags of
// "meshctl task add".
type AddTask struct {
	// Which task it is.

	// Network is where the task is found; required.
	Network string `json:"network"`
	// Service is the name under which it is found; required.
	Service string `json:"service"`
	// ID is unique in the network. If it is empty, the node generates one.
	ID string `json:"id,omitempty"`
	// Slot is the task's number in the service, from 1; 0 is none.
	Slot uint32 `json:"slot,omitempty"`

	// Where it is reached, and by what further names.

	// IPs are one address, or one IPv4 and one IPv6; required.
	IPs []string `json:"ips"`
	// Ports are those of its service at which it is reached, and where it listens itself if
	// that is another port, as [NAME:]PORT[:TARGET][/tcp|udp]; none means all.
	Ports []string `json:"ports,omitempty"`
	// Aliases are further names of the service.
	Aliases []string `json:"aliases,omitempty"`
	// Hostname is a further name of this task alone.
	Hostname string `json:"hostname,omitempty"`
	// Name is the name of the task's container.
	Name string `json:"name,omitempty"`

	// How it is balanced.

	// Weight is its share of new connections, 1 to 65535; 0 stands for 1.
	Weight uint16 `json:"weight,omitempty"`
	// VIPs pins the service's VIP: one address, or one IPv4 and one IPv6.
	VIPs []string `json:"vips,omitempty"`

	// SetService is what the task sets of its service. Empty fields leave the
	// service as it is, or take the defaults if it is new.
	SetService
}

// TaskAdded is the reply to AddTask.
type TaskAdded struct {
	Task     Task         `json:"task"`
	VIPs     []netip.Addr `json:"vips"` // of the service; none in dnsrr mode
	Mode     string       `json:"mode"` // in which the service is answered now
	Warnings []string     `json:"warnings"`
}

// TaskRef names a task. Network may be empty if the id is unique on this node.
type TaskRef struct {
	ID      string `json:"id"`
	Network string `json:"network,omitempty"`
}

// TaskFilter selects tasks. Empty fields select all.
type TaskFilter struct {
	Network string
	Service string
	All     bool // of every node, not only of this one
}

// Task is one task as this node sees it.
type Task struct {
	// Which task it is.

	// ID is unique in the network.
	ID string `json:"id"`
	// Network is where it is found.
	Network string `json:"network"`
	// Service is the service that it belongs to.
	Service string `json:"service"`
	// Slot is its number in the service, from 1; 0 is none.
	Slot uint32 `json:"slot,omitempty"`

	// Its names beside the service's.

	// TaskName is <service>.<slot>.<id>, which resolves to this task alone.
	TaskName string `json:"task_name"`
	// Name is that of its container.
	Name string `json:"name,omitempty"`
	// Hostname is the one that it was registered with.
	Hostname string `json:"hostname,omitempty"`
	// Aliases are the names that it gives to its service.
	Aliases []string `json:"aliases,omitempty"`

	// Where it is reached.

	// IPs are its addresses, the IPv4 one first.
	IPs []netip.Addr `json:"ips"`
	// Ports are those that it declares, as [NAME:]PORT[:TARGET]/PROTO; none means all.
	Ports []string `json:"ports,omitempty"`
	// Weight is its share of new connections, from 1.
	Weight uint16 `json:"weight"`

	// How it is doing.

	// Health is passing, starting or failing, as its node states it.
	Health string `json:"health"`
	// State is how this node serves it: serving, suspect, failing, draining, unready or hidden.
	State string `json:"state"`
	// Node is the one that runs it, and alone may change it (S1).
	Node string `json:"node"`
	// Origin says who states a task of this node: api, api:SET, file:FILE:LINE or
	// docker:CONTAINER. It is empty for tasks of other nodes.
	Origin string `json:"origin,omitempty"`
	// Reason says why a hidden task of a living node is not served, for people.
	Reason string `json:"reason,omitempty"`
}

// ParsedTask is what AddTask asks for, checked and in the types of the table.
type ParsedTask struct {
	Network  string
	Endpoint state.Endpoint // normalized; ID may be empty
	VIPs     []netip.Addr   // to pin; none: chosen by the mesh

	service SetService // checked
}

// Settings returns the settings of the task's service with what the request
// asks for.
func (p *ParsedTask) Settings(s state.Settings) state.Settings {
	s, _ = p.service.apply(s) // Parse has checked it
	return s
}

// IsZero says that nothing of a task is asked for.
func (r AddTask) IsZero() bool { return reflect.ValueOf(r).IsZero() }

// Parse checks the request and converts it. The error is an *Error of
// CodeInvalid that names the field and the fix.
func (r AddTask) Parse() (ParsedTask, error) {
	p := ParsedTask{Network: strings.ToLower(r.Network), service: r.SetService}
	p.Endpoint = state.Endpoint{
		ID: r.ID, Service: r.Service, Slot: r.Slot, Name: r.Name, Hostname: r.Hostname,
		Aliases: slices.Clone(r.Aliases), Weight: r.Weight,
	}
	p.Endpoint.Normalize()
	for _, check := range []func() error{
		func() error { return CheckName("network", p.Network) },
		func() error { return CheckName("service", p.Endpoint.Service) },
		func() error { return checkNotNumeric("service", p.Endpoint.Service) },
		func() error { return r.parseIPs(&p.Endpoint) },
		func() error { return r.parsePorts(&p.Endpoint) },
		func() error { return r.parseService(&p) },
		func() error { return checkNames(p.Endpoint) },
	} {
		if err := check(); err != nil {
			return ParsedTask{}, err
		}
	}
	return p, nil
}

func (r AddTask) parseIPs(e *state.Endpoint) error {
	ips, err := parseAddrs("ips", r.IPs)
	if err != nil {
		return err
	}
	if len(ips) == 0 {
		return invalid("ips", "give the address of the task, for example 10.1.0.7", "a task needs an IP address")
	}
	for _, a := range ips {
		if a.Is4() {
			e.IP4 = a
		} else {
			e.IP6 = a
		}
	}
	return nil
}

func (r AddTask) parsePorts(e *state.Endpoint) error {
	if len(r.Ports) > state.MaxPorts {
		return invalid("ports", "declare none to balance all ports", "%d ports, at most %d", len(r.Ports), state.MaxPorts)
	}
	for _, s := range r.Ports {
		port, err := state.ParsePort(s)
		if err != nil {
			return invalid("ports", "write [NAME:]PORT[:TARGET][/tcp|udp], for example http:80/tcp or 80:8080", "%v", err)
		}
		for _, q := range e.Ports {
			if q.Number == port.Number && q.Proto == port.Proto {
				return invalid("ports", "give each port of the service once", "%d/%s is given twice", port.Number, port.Proto)
			}
		}
		e.Ports = append(e.Ports, port)
	}
	return nil
}

func (r AddTask) parseService(p *ParsedTask) error {
	settings, err := r.apply(state.Settings{})
	if err != nil {
		return err
	}
	if p.VIPs, err = parseAddrs("vips", r.VIPs); err != nil {
		return err
	}
	if len(p.VIPs) > 0 && r.Mode != "" && settings.Mode == state.ModeDNSRR {
		return invalid("vips", "leave it out, or use mode vip", "a dnsrr service has no virtual IP")
	}
	return nil
}

// checkNames checks the names of e that have no check of their own.
func checkNames(e state.Endpoint) error {
	if e.ID != "" {
		if err := state.CheckName(e.ID); err != nil {
			return invalid("id", "use letters, digits, '-' and '_', or leave it out to have one made", "%s", reason(err))
		}
	}
	if err := e.ValidateNames(); err != nil {
		return invalidField(err, nameHint)
	}
	if err := checkNotNumeric("hostname", e.Hostname); err != nil {
		return err
	}
	for _, a := range e.Aliases {
		if err := checkNotNumeric("aliases", a); err != nil {
			return err
		}
	}
	return nil
}

// FromMembers describes the members of a service.
func FromMembers(s *state.Service) []Task {
	tasks := make([]Task, 0, s.Members.Len())
	for i, m := range s.Members.All() {
		tasks = append(tasks, FromEndpoint(s.Network, m.Endpoint(), s.Class(i)))
	}
	return tasks
}

// FromEndpoint describes an endpoint of a network, served as class says.
func FromEndpoint(network string, e state.Endpoint, class state.Class) Task {
	return Task{
		ID: e.ID, Network: network, Service: e.Service, Slot: e.Slot, TaskName: e.TaskName(), Name: e.Name,
		Hostname: e.Hostname, Aliases: slices.Clone(e.Aliases), IPs: addrs(e.IP4, e.IP6), Ports: portStrings(e.Ports),
		Weight: max(e.Weight, 1), Health: e.Health.String(), State: class.String(), Node: string(e.Owner),
	}
}

// SortTasks sorts tasks as Backend.Tasks returns them.
func SortTasks(tasks []Task) {
	slices.SortFunc(tasks, func(a, b Task) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Service, b.Service),
			cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.ID, b.ID))
	})
}
