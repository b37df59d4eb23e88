package hostread

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// maxNeighbours bounds what is read of a table of neighbours, which others fill.
const maxNeighbours = 1 << 15

// links are the devices that were read.
type links struct {
	all   []hostcheck.Device
	at    map[uint32]int    // index of a device to its place in all
	names map[uint32]string // index of a device to its name
}

// Sizes in bytes of the headers ifinfomsg, ifaddrmsg and ndmsg (rtnetlink(7)).
const (
	linkHeader      = 16
	addressHeader   = 8
	neighbourHeader = 12
)

// devices reads devices, their addresses, and the ports of bridges.
func (r *reader) devices() (*links, error) {
	l := &links{at: map[uint32]int{}, names: map[uint32]string{}}
	masters := map[uint32]uint32{}
	err := r.route.dump(unix.RTM_GETLINK, make([]byte, linkHeader), nil, func(m []byte) error {
		index := binary.NativeEndian.Uint32(m[4:])
		d := hostcheck.Device{Loopback: binary.NativeEndian.Uint32(m[8:])&unix.IFF_LOOPBACK != 0}
		eachAttribute(m[linkHeader:], func(kind uint16, data []byte) {
			switch kind {
			case unix.IFLA_IFNAME:
				d.Name = cString(data)
			case unix.IFLA_MASTER:
				masters[index] = binary.NativeEndian.Uint32(data)
			case unix.IFLA_LINKINFO:
				eachAttribute(data, func(kind uint16, data []byte) {
					if kind == unix.IFLA_INFO_KIND {
						of := cString(data)
						d.Bridge, d.Pair = of == "bridge", of == "veth" || of == "tun"
					}
				})
			}
		})
		l.at[index], l.names[index] = len(l.all), d.Name
		l.all = append(l.all, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("devices: %w", err)
	}
	for index, master := range masters {
		l.all[l.at[index]].Master = l.names[master]
	}
	if err := r.ports(l); err != nil {
		return nil, fmt.Errorf("ports of bridges: %w", err)
	}
	return l, r.addresses(l)
}

// ports reads which ports of bridges are in hairpin mode.
func (r *reader) ports(l *links) error {
	head := make([]byte, linkHeader)
	head[0] = unix.AF_BRIDGE
	return r.route.dump(unix.RTM_GETLINK, head, nil, func(m []byte) error {
		at, known := l.at[binary.NativeEndian.Uint32(m[4:])]
		if !known {
			return nil
		}
		eachAttribute(m[linkHeader:], func(kind uint16, data []byte) {
			if kind != unix.IFLA_PROTINFO {
				return
			}
			eachAttribute(data, func(kind uint16, data []byte) {
				if kind == unix.IFLA_BRPORT_MODE && len(data) == 1 {
					l.all[at].Hairpin = data[0] == 1
				}
			})
		})
		return nil
	})
}

// addresses reads the addresses of the devices.
func (r *reader) addresses(l *links) error {
	err := r.route.dump(unix.RTM_GETADDR, make([]byte, addressHeader), nil, func(m []byte) error {
		at, known := l.at[binary.NativeEndian.Uint32(m[4:])]
		if !known {
			return nil
		}
		var address, peer netip.Addr
		eachAttribute(m[addressHeader:], func(kind uint16, data []byte) {
			switch kind {
			case unix.IFA_LOCAL:
				address, _ = netip.AddrFromSlice(data)
			case unix.IFA_ADDRESS:
				peer, _ = netip.AddrFromSlice(data)
			}
		})
		if !address.IsValid() { // IPv6
			address = peer
		}
		if p := netip.PrefixFrom(address, int(m[1])); p.IsValid() {
			l.all[at].Prefixes = append(l.all[at].Prefixes, p)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	return nil
}

// neighbours reads the Ethernet addresses of tasks, and the ports of bridges behind
// which these are. They only matter while bridges call iptables.
func (r *reader) neighbours(l *links, tasks []netip.Addr, f *hostcheck.Facts) error {
	f.Neighbours, f.Ports = map[netip.Addr]string{}, map[string]string{}
	if len(tasks) == 0 || !f.BridgeFilter4 && !f.BridgeFilter6 {
		return nil
	}
	ours := make(map[netip.Addr]bool, len(tasks))
	for _, a := range tasks {
		ours[a] = true
	}
	err := r.eachNeighbour(unix.AF_UNSPEC, func(_ uint32, to []byte, mac string) {
		if a, ok := netip.AddrFromSlice(to); ok && mac != "" && ours[a] {
			f.Neighbours[a] = mac
		}
	})
	if err != nil {
		return fmt.Errorf("neighbours: %w", err)
	}
	wanted := map[string]bool{}
	for _, mac := range f.Neighbours {
		wanted[mac] = true
	}
	err = r.eachNeighbour(unix.AF_BRIDGE, func(index uint32, _ []byte, mac string) {
		if wanted[mac] {
			f.Ports[mac] = l.names[index]
		}
	})
	if err != nil {
		return fmt.Errorf("forwarding tables of bridges: %w", err)
	}
	return nil
}

// eachNeighbour calls take for each entry of a table of neighbours.
func (r *reader) eachNeighbour(family byte, take func(index uint32, to []byte, mac string)) error {
	head := make([]byte, neighbourHeader)
	head[0] = family
	n := 0
	return r.route.dump(unix.RTM_GETNEIGH, head, nil, func(m []byte) error {
		if n++; n > maxNeighbours {
			return errTooMuch
		}
		var to, mac []byte
		eachAttribute(m[neighbourHeader:], func(kind uint16, data []byte) {
			switch kind {
			case unix.NDA_DST:
				to = data
			case unix.NDA_LLADDR:
				mac = data
			}
		})
		take(binary.NativeEndian.Uint32(m[4:]), to, net.HardwareAddr(mac).String())
		return nil
	})
}

// routeDevices asks the kernel by which devices packets to some addresses leave.
func (r *reader) routeDevices(l *links, to []netip.Addr, f *hostcheck.Facts) {
	for _, a := range to {
		head := make([]byte, routeHeader)
		head[0], head[1] = unix.AF_INET, byte(a.BitLen())
		if a.Is6() {
			head[0] = unix.AF_INET6
		}
		m := r.route.request(unix.RTM_GETROUTE, head, attribute(nil, unix.RTA_DST, a.AsSlice()))
		if len(m) < routeHeader {
			continue // there is no route
		}
		eachAttribute(m[routeHeader:], func(kind uint16, data []byte) {
			if name := ""; kind == unix.RTA_OIF && len(data) == 4 {
				if name = l.names[binary.NativeEndian.Uint32(data)]; name != "" && !slices.Contains(f.RouteDevices, name) {
					f.RouteDevices = append(f.RouteDevices, name)
				}
			}
		})
	}
}

// routeHeader is the size of rtmsg in bytes.
const routeHeader = 12
