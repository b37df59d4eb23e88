package docker

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"meshd/state"
)

// place is where a task is reached.
type place struct {
	addrs []netip.Addr
	ports []string // as control.AddTask has them
}

// locate finds where a container is reached, by its labels and its networks. A label can
// choose among the addresses that the container has, and make up none: traffic of the
// service would go there.
func locate(l *look, r *request, node []netip.Addr) (place, error) {
	c := &l.self
	at := place{ports: r.task.Ports}
	mode := string(c.HostConfig.NetworkMode)
	if strings.HasPrefix(mode, shared) {
		if l.other == nil || l.other.HostConfig == nil || l.other.NetworkSettings == nil {
			return at, errors.New("the container whose network it uses is not there")
		}
		c, mode = l.other, string(l.other.HostConfig.NetworkMode)
	}
	var err error
	switch {
	case mode == network.NetworkHost:
		at.addrs, err = ofNode(r.address, node)
	case r.address == addressNode:
		if at.addrs, err = ofNode("", node); err == nil {
			at, err = published(c, &at)
		}
	default:
		at.addrs, err = own(c, r.address)
	}
	return at, err
}

// ofNode returns the address of the node that a container in the host's network has.
func ofNode(label string, node []netip.Addr) ([]netip.Addr, error) {
	if len(node) == 0 {
		return nil, errors.New("the node has no address yet")
	}
	if label == "" || label == addressNode {
		return node[:1], nil
	}
	addrs, err := addresses(label)
	for _, a := range addrs {
		if !slices.Contains(node, a) {
			return nil, fmt.Errorf("label mesh.address: %s is no address of this node", a)
		}
	}
	return addrs, err
}

// addresses reads the value of mesh.address.
func addresses(label string) (addrs []netip.Addr, err error) {
	texts, err := list(label)
	if err != nil {
		return nil, fmt.Errorf("label mesh.address: %w", err)
	}
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("label mesh.address: %s is no address; write node, network:NAME, or an address of the "+
				"container", shown(text))
		}
		addrs = append(addrs, a.Unmap())
	}
	return addrs, nil
}

// own returns the addresses of a container in the engine's networks.
func own(c *container.InspectResponse, label string) ([]netip.Addr, error) {
	in := map[string][]netip.Addr{}
	var all []netip.Addr
	for name, n := range c.NetworkSettings.Networks {
		if n == nil {
			continue
		}
		for _, a := range []netip.Addr{n.IPAddress, n.GlobalIPv6Address} {
			if a.IsValid() && !a.IsUnspecified() {
				in[name], all = append(in[name], a.Unmap()), append(all, a.Unmap())
			}
		}
	}
	names := strings.Join(shownAll(slices.Sorted(maps.Keys(in))), ", ")
	name, chosen := strings.CutPrefix(label, addressNetwork)
	switch {
	case len(in) == 0:
		return nil, errors.New("the container has no address in a network of the engine; publish its ports and set label " +
			"mesh.address to node")
	case chosen && len(in[name]) == 0:
		return nil, fmt.Errorf("label mesh.address: the container has no address in network %s, but in %s", shown(name),
			names)
	case chosen:
		return in[name], nil
	case label != "":
		addrs, err := addresses(label)
		for _, a := range addrs {
			if !slices.Contains(all, a) {
				return nil, fmt.Errorf("label mesh.address: %s is no address of the container", a)
			}
		}
		return addrs, err
	case len(in) > 1:
		return nil, fmt.Errorf("the container is in %d networks: choose one by label mesh.address=%sNAME, of %s", len(in),
			addressNetwork, names)
	}
	return all, nil
}

// shownAll quotes the first few names.
func shownAll(names []string) (out []string) {
	for i, n := range names {
		if i == 8 {
			return append(out, "…")
		}
		out = append(out, shown(n))
	}
	return out
}

// published returns the node's address with the ports that a container publishes: of
// those that its labels name, else of all.
func published(c *container.InspectResponse, at *place) (place, error) {
	out := place{addrs: at.addrs}
	wanted := at.ports
	if len(wanted) == 0 {
		for p := range c.NetworkSettings.Ports {
			if p.Proto() == network.TCP || p.Proto() == network.UDP {
				wanted = append(wanted, fmt.Sprintf("%d/%s", p.Num(), p.Proto()))
			}
		}
		slices.Sort(wanted)
	}
	for _, text := range wanted {
		p, err := state.ParsePort(text)
		if err != nil {
			return out, fmt.Errorf("label mesh.port: %w", err)
		}
		inside, ok := network.PortFrom(p.Listens(), network.IPProtocol(p.Proto.String()))
		if !ok {
			return out, fmt.Errorf("label mesh.port: %s is no port", shown(text))
		}
		outside := uint16(0)
		for _, b := range c.NetworkSettings.Ports[inside] {
			n, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err == nil && n > 0 && reachable(b.HostIP, out.addrs[0]) {
				outside = uint16(n)
				break
			}
		}
		if outside == 0 {
			return out, fmt.Errorf("port %s is not published at the node's address %s, as label mesh.address asks for",
				inside, out.addrs[0])
		}
		if p.Target = outside; outside == p.Number {
			p.Target = 0
		}
		out.ports = append(out.ports, p.String())
	}
	if len(out.ports) == 0 {
		return out, errors.New("the container publishes no port, and label mesh.address is " + addressNode)
	}
	return out, nil
}

// reachable says that a port that is bound at one address is reached at another.
func reachable(bound, at netip.Addr) bool {
	if !bound.IsValid() || bound == at {
		return true
	}
	if bound.IsUnspecified() {
		return bound.Is4() == at.Is4() || !bound.Is4()
	}
	return false
}
