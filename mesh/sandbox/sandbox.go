// Package sandbox is what meshd needs of one container (rules L4 and R1 of
// docs/DESIGN.md): to enter its network namespace, to know it again after a
// restart, to notice its end, and to be its name server on 127.0.0.11.
//
// A Namespace is held by an open file, so that neither a reused process id nor
// a reused path can put another namespace in its place. The price is that the
// kernel keeps a namespace for as long as it is held: the holder has to ask Gone
// for its end, and then to close it.
//
// The name server listens on 127.0.0.11 on a port that the kernel chooses, and
// one nftables table, "ip meshd_dns", sends port 53 of that address there. So a
// container may run a name server of its own on every address.
package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// ServerAddr is where a sandbox's processes ask for names: 127.0.0.11, as in
// Docker, on port 53.
var ServerAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 11}), 53)

// What Open and Gone can find. Permission and absence are fs.ErrPermission and
// fs.ErrNotExist.
var (
	// ErrNotNamespace: the file is no network namespace.
	ErrNotNamespace = errors.New("not a network namespace")
	// ErrOwn: it is the namespace in which meshd itself runs.
	ErrOwn = errors.New("the network namespace of meshd itself")
	// ErrGone: the namespace is no longer where it was, or has ended.
	ErrGone = errors.New("the network namespace is gone")
	// errNoRedirect: the namespace's kernel has no nftables to redirect with.
	errNoRedirect = errors.New("no nftables nat in the kernel")
)

// Target names a namespace. Exactly one field is set.
type Target struct {
	Path string // absolute, as /run/netns/web or /proc/1234/ns/net
	PID  int    // a process in it, whose end is the end of the sandbox
}

// String names the target for people.
func (t Target) String() string {
	if t.PID > 0 {
		return fmt.Sprintf("process %d", t.PID)
	}
	return t.Path
}

// Identity tells a namespace from every other one, also from one that is at
// the same place after a restart of meshd or of the machine.
type Identity struct {
	Boot   string `json:"boot"`             // the kernel's boot id
	Dev    uint64 `json:"dev"`              // with Ino: unique among living namespaces
	Ino    uint64 `json:"ino"`              // the number that readlink shows
	Cookie uint64 `json:"cookie,omitempty"` // never used twice in one boot; 0 before Linux 5.14
	Start  uint64 `json:"start,omitempty"`  // of Target.PID: clock ticks since boot
}

// Sockets are the name server's, inside the namespace.
type Sockets struct {
	Packet     net.PacketConn // UDP
	Stream     net.Listener   // TCP
	Port       uint16         // of both
	Redirected bool           // port 53 leads to Port; else Port is 53
}

// Close closes both.
func (s *Sockets) Close() error { return errors.Join(s.Packet.Close(), s.Stream.Close()) }

// firstOf returns the first usable address of each family, IPv4 first.
func firstOf(all []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, want4 := range []bool{true, false} {
		for _, a := range all {
			if a.Is4() == want4 && a.IsGlobalUnicast() {
				out = append(out, a)
				break
			}
		}
	}
	return out
}
