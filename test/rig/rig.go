//go:build linux

package rig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
)

// Rig is one switch with the hosts on it. Several rigs in one program do not
// see each other.
type Rig struct {
	Dir string // for logs and the like

	sw *Namespace

	mu    sync.Mutex // guards everything that follows
	hosts []*Host
	procs []*Proc
}

const (
	maxHosts = 250
	bridge   = "switch"
	tasksDev = "tasks"
	uplink   = "eth0"
)

// New makes a rig without hosts. Logs of its processes go to dir. It fails with
// [ErrUnavailable] outside of [Main].
func New(dir string) (*Rig, error) {
	if Dir() == "" {
		return nil, fmt.Errorf("%w here: the program was not started by rig.Main", ErrUnavailable)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	r := &Rig{Dir: dir}
	sw, err := newNamespace(r, bridge)
	if err != nil {
		return nil, err
	}
	r.sw = sw
	if err := sw.addBridge(bridge); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close kills the processes of the rig and lets go of its namespaces.
func (r *Rig) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range slices.Backward(r.procs) {
		p.Kill()
	}
	for _, h := range r.hosts {
		h.closeAll()
	}
	r.sw.close()
	r.hosts, r.procs = nil, nil
}

// Hosts returns the hosts in the order of their making.
func (r *Rig) Hosts() []*Host {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.hosts)
}

// Procs returns every process that was started, in order.
func (r *Rig) Procs() []*Proc {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.procs)
}

// Host is a machine on the switch. It routes between the switch and its tasks.
type Host struct {
	*Namespace
	Index int // from 1

	// Its addresses. The gateway is the default route of its tasks.

	Addr, Addr6       netip.Addr   // on the switch
	Gateway, Gateway6 netip.Addr   // towards its tasks
	Subnet, Subnet6   netip.Prefix // of its tasks

	// How it is set up.

	Bridge string           // its device towards its tasks
	NoIPv6 bool             // others do not reach its tasks over IPv6: set it once the host has no IPv6
	bare   bool             // it is as the kernel made it
	mac    net.HardwareAddr // of its device on the switch

	// Guarded by rig.mu.

	faults map[*Host][]Fault // of packets that come from the key
	tasks  []*Task           // on the host now
	made   int               // tasks ever made
}

// AddHost puts another host on the switch. It forwards, and its bridge sends a packet
// back through the port that it came from.
func (r *Rig) AddHost(name string) (*Host, error) {
	return r.addHost(name, tasksDev, false)
}

// AddBareHost is AddHost for a host that is as a kernel makes it: it does not forward,
// and its bridge, which has that name, does not send packets back.
func (r *Rig) AddBareHost(name, bridge string) (*Host, error) {
	return r.addHost(name, bridge, true)
}

func (r *Rig) addHost(name, bridge string, bare bool) (*Host, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.hosts) == maxHosts {
		return nil, fmt.Errorf("a rig has at most %d hosts", maxHosts)
	}
	h := plan(len(r.hosts) + 1)
	ns, err := newNamespace(r, name)
	if err != nil {
		return nil, err
	}
	h.Namespace, h.Bridge, h.bare = ns, bridge, bare
	if err := h.build(r); err != nil {
		ns.close()
		return nil, fmt.Errorf("build host %s: %w", name, err)
	}
	r.hosts = append(r.hosts, h)
	return h, nil
}

// plan chooses the addresses of host i.
func plan(i int) *Host {
	b := byte(i)
	h := &Host{
		Index:    i,
		Addr:     netip.AddrFrom4([4]byte{172, 20, 0, b}),
		Addr6:    netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x20, 15: b}),
		Gateway:  netip.AddrFrom4([4]byte{10, 1, b, 1}),
		Gateway6: netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x21, 7: b, 15: 1}),
		mac:      net.HardwareAddr{2, 0, 0, 0, 0, b},
		faults:   map[*Host][]Fault{},
	}
	h.Subnet = netip.PrefixFrom(h.Gateway, 24).Masked()
	h.Subnet6 = netip.PrefixFrom(h.Gateway6, 64).Masked()
	return h
}

// build gives the host its devices, addresses and routes; r.mu is held.
func (h *Host) build(r *Rig) error {
	if err := r.sw.plug(bridge, fmt.Sprintf("host%d", h.Index), h.Namespace, h.mac, true); err != nil {
		return err
	}
	steps := []error{
		h.addBridge(h.Bridge),
		h.address(uplink, h.Addr, 24), h.address(uplink, h.Addr6, 64),
		h.address(h.Bridge, h.Gateway, 24), h.address(h.Bridge, h.Gateway6, 64),
	}
	if !h.bare {
		steps = append(steps, h.Sysctl("net.ipv4.ip_forward", "1"), sysctl6(h.Namespace))
	}
	for _, other := range r.hosts {
		steps = append(steps, h.routeTo(other), other.routeTo(h))
	}
	return errors.Join(steps...)
}

// sysctl6 lets the namespace forward IPv6, on kernels that have it.
func sysctl6(n *Namespace) error {
	err := n.Sysctl("net.ipv6.conf.all.forwarding", "1")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// routeTo routes from h to the tasks of other.
func (h *Host) routeTo(other *Host) error {
	err := h.route(other.Subnet, other.Addr)
	if !h.NoIPv6 {
		err = errors.Join(err, h.route(other.Subnet6, other.Addr6))
	}
	return err
}

// LinkUp takes a device up again and gives the host its routes back.
func (h *Host) LinkUp(device string) error {
	if err := h.Namespace.LinkUp(device); err != nil || device != uplink {
		return err
	}
	err := h.address(uplink, h.Addr6, 64)
	for _, other := range h.rig.Hosts() {
		if other != h {
			err = errors.Join(err, h.routeTo(other))
		}
	}
	return err
}

func (h *Host) closeAll() {
	for _, t := range h.tasks {
		t.close()
	}
	h.close()
}

// Task is a namespace behind a host, as a container is.
type Task struct {
	*Namespace
	Host  *Host
	Addr  netip.Addr
	Addr6 netip.Addr

	port string // its device in the host
}

// AddTask puts another task on the host. Addresses are not used twice.
func (h *Host) AddTask(name string) (*Task, error) {
	h.rig.mu.Lock()
	defer h.rig.mu.Unlock()
	if h.made == 250 {
		return nil, fmt.Errorf("%s has no more addresses for tasks", h.Name)
	}
	h.made++
	ns, err := newNamespace(h.rig, name)
	if err != nil {
		return nil, err
	}
	t := &Task{Namespace: ns, Host: h, Addr: nth(h.Gateway, h.made), Addr6: nth(h.Gateway6, h.made)}
	t.port = fmt.Sprintf("task%d", h.made)
	if err := t.build(h.made); err != nil {
		ns.close()
		return nil, fmt.Errorf("build task %s: %w", name, err)
	}
	h.tasks = append(h.tasks, t)
	return t, nil
}

func (t *Task) build(n int) error {
	mac := net.HardwareAddr{2, 1, 0, 0, byte(t.Host.Index), byte(n)}
	if err := t.Host.plug(t.Host.Bridge, t.port, t.Namespace, mac, !t.Host.bare); err != nil {
		return err
	}
	return errors.Join(
		t.address(uplink, t.Addr, 24), t.address(uplink, t.Addr6, 64),
		t.route(netip.PrefixFrom(netip.IPv4Unspecified(), 0), t.Host.Gateway),
		t.route(netip.PrefixFrom(netip.IPv6Unspecified(), 0), t.Host.Gateway6),
	)
}

// Remove kills the task's processes and takes the task away.
func (t *Task) Remove() {
	r := t.rig
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.procs {
		if p.ns == t.Namespace {
			p.Kill()
		}
	}
	t.Host.tasks = slices.DeleteFunc(t.Host.tasks, func(o *Task) bool { return o == t })
	_ = t.Host.link(t.port, t.Host.nl.LinkDel) // at once; the kernel would do so a little later
	t.close()
}

// nth returns the address n after a.
func nth(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}

// LogDir is where logs of the namespace's processes are.
func (n *Namespace) LogDir() string { return n.rig.Dir }

// logPath names the log of a process of the namespace.
func (n *Namespace) logPath(process string) string {
	return filepath.Join(n.rig.Dir, n.Name+"-"+process+".log")
}

// addBridge makes a bridge device in the namespace. Its Ethernet address is
// set, because an inherited one changes as ports come and go, and neighbours
// go on sending to the old one.
func (n *Namespace) addBridge(name string) error {
	mac := net.HardwareAddr{2, 2, 0, 0, 0, 1}
	err := n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac}})
	if err != nil {
		return fmt.Errorf("add bridge %s in %s: %w", name, n.Name, err)
	}
	return n.up(name)
}

// plug connects the eth0 of another namespace to a bridge of this one. With hairpin,
// packets may go back where they came from.
func (n *Namespace) plug(bridge, port string, to *Namespace, mac net.HardwareAddr, hairpin bool) error {
	br, err := n.nl.LinkByName(bridge)
	if err != nil {
		return err
	}
	pair := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: port, MasterIndex: br.Attrs().Index},
		PeerName:         uplink,
		PeerHardwareAddr: mac,
		PeerNamespace:    netlink.NsFd(to.file.Fd()),
	}
	if err := n.nl.LinkAdd(pair); err != nil {
		return fmt.Errorf("connect %s to %s: %w", to.Name, n.Name, err)
	}
	return errors.Join(n.up(port), to.up(uplink), n.link(port, func(l netlink.Link) error {
		// Where br_netfilter is loaded, a packet that is translated back to
		// its sender turns round inside the bridge.
		return n.nl.LinkSetHairpin(l, hairpin)
	}))
}
