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
	Network  string   `json:"network"`
	Service  string   `json:"service"`
	ID       string   `json:"id,omitempty"` // empty: the node generates one
	Slot     uint32   `json:"slot,omitempty"`
	IPs      []string `json:"ips"`             // one, or one IPv4 and one IPv6
	Ports    []string `json:"ports,omitempty"` // [NAME:]PORT[/tcp|udp]; none: all ports
	Aliases  []string `json:"aliases,omitempty"`
	Hostname string   `json:"hostname,omitempty"`
	Name     string   `json:"name,omitempty"`   // container name
	Weight   uint16   `json:"weight,omitempty"` // 0: 1
	VIPs     []string `json:"vips,omitempty"`   // pins the service's VIP: one, or one IPv4 and one IPv6

	SetService // what is set of the service; empty fields: as it is, or the defaults if it is new
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
	ID       string       `json:"id"`
	Network  string       `json:"network"`
	Service  string       `json:"service"`
	Slot     uint32       `json:"slot,omitempty"`
	TaskName string       `json:"task_name"`      // <service>.<slot>.<id>, which resolves
	Name     string       `json:"name,omitempty"` // container name
	Hostname string       `json:"hostname,omitempty"`
	Aliases  []string     `json:"aliases,omitempty"`
	IPs      []netip.Addr `json:"ips"`
	Ports    []string     `json:"ports,omitempty"`
	Weight   uint16       `json:"weight"`
	Health   string       `json:"health"` // passing, starting, failing
	State    string       `json:"state"`  // serving, suspect, draining, unready, hidden
	Node     string       `json:"node"`
	Reason   string       `json:"reason,omitempty"` // of a hidden one whose node lives: why it is not served
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
		func() error { return checkAsked("service", p.Endpoint.Service) },
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
			return invalid("ports", "write [NAME:]PORT[/tcp|udp], for example http:80/tcp", "%v", err)
		}
		for _, q := range e.Ports {
			if q.Number == port.Number && q.Proto == port.Proto {
				return invalid("ports", "give each port once", "%d/%s is given twice", port.Number, port.Proto)
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
	if err := checkAsked("hostname", e.Hostname); err != nil {
		return err
	}
	for _, a := range e.Aliases {
		if err := checkAsked("aliases", a); err != nil {
			return err
		}
	}
	return nil
}

// FromMembers describes the members of a service.
func FromMembers(s *state.Service) []Task {
	tasks := make([]Task, 0, len(s.Members))
	for i, m := range s.Members {
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
