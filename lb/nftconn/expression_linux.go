package nftconn

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Family is what differs between IPv4 and IPv6 in rules and elements.
type Family struct {
	Digit string               // "4" or "6", the suffix of names
	Proto byte                 // NFPROTO_IPV4 or NFPROTO_IPV6
	src   uint32               // offset of the source address in the network header
	dst   uint32               // offset of the destination address
	Size  uint32               // of an address in bytes
	Addr  nftables.SetDatatype // of an address in a set
	ICMP  byte                 // protocol number of its ICMP
	Echo  byte                 // ICMP type of an echo request

	PortUnreachable byte // ICMP code
}

// Families are the two families: IPv4, then IPv6. Nobody writes to it.
var Families = [2]Family{
	{
		Digit: "4", Proto: unix.NFPROTO_IPV4, src: 12, dst: 16, Size: 4, Addr: nftables.TypeIPAddr,
		ICMP: unix.IPPROTO_ICMP, Echo: 8, PortUnreachable: 3,
	},
	{
		Digit: "6", Proto: unix.NFPROTO_IPV6, src: 8, dst: 24, Size: 16, Addr: nftables.TypeIP6Addr,
		ICMP: unix.IPPROTO_ICMPV6, Echo: 128, PortUnreachable: 4,
	},
}

// FamilyIndex returns the place of the address's family in Families.
func FamilyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// FirstRegister is the first of the kernel's 16 registers of 4 bytes (NFT_REG32_00).
// Parts of a concatenation lie in consecutive registers.
const FirstRegister = 8

// RegisterAt returns the register at an offset in bytes.
func RegisterAt(offset uint32) uint32 { return FirstRegister + offset/4 }

// Match matches packets of the family.
func (f *Family) Match() []expr.Any {
	return []expr.Any{
		LoadMeta(expr.MetaKeyNFPROTO),
		Equal([]byte{f.Proto}),
	}
}

// LoadDestination loads the destination address.
func (f *Family) LoadDestination(r uint32) expr.Any {
	return &expr.Payload{DestRegister: r, Base: expr.PayloadBaseNetworkHeader, Offset: f.dst, Len: f.Size}
}

// LoadSource loads the source address.
func (f *Family) LoadSource(r uint32) expr.Any {
	return &expr.Payload{DestRegister: r, Base: expr.PayloadBaseNetworkHeader, Offset: f.src, Len: f.Size}
}

// LoadProtocol loads the number of the transport protocol.
func LoadProtocol(r uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: r}
}

// LoadPort loads the destination port.
func LoadPort(r uint32) expr.Any {
	return &expr.Payload{DestRegister: r, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// LoadMeta loads what a packet has beside its bytes into the first register.
func LoadMeta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: FirstRegister} }

// SetMeta sets it to what the first register holds.
func SetMeta(key expr.MetaKey) expr.Any {
	return &expr.Meta{Key: key, SourceRegister: true, Register: FirstRegister}
}

// Equal matches if the first register holds these bytes.
func Equal(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: FirstRegister, Data: data}
}

// NotEqual is the opposite of Equal.
func NotEqual(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpNeq, Register: FirstRegister, Data: data}
}

// Mask leaves the bits of the first register that these bytes have set.
func Mask(bits []byte) expr.Any {
	return &expr.Bitwise{
		SourceRegister: FirstRegister, DestRegister: FirstRegister, Len: uint32(len(bits)),
		Mask: bits, Xor: make([]byte, len(bits)),
	}
}

// Lookup replaces what begins in register r, the key, by what a map has for it; what the
// map does not have ends the rule.
func Lookup(r uint32, set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: r, DestRegister: r, IsDestRegSet: true, SetName: set.Name, SetID: set.ID}
}

// DestinationIn matches packets to the addresses of a set.
func (f *Family) DestinationIn(set *nftables.Set) []expr.Any {
	return []expr.Any{f.LoadDestination(FirstRegister), InSet(set)}
}

// SourceIn matches packets from the addresses of a set.
func (f *Family) SourceIn(set *nftables.Set) []expr.Any {
	return []expr.Any{f.LoadSource(FirstRegister), InSet(set)}
}

// Return ends the packet's way through a chain.
func Return() expr.Any { return &expr.Verdict{Kind: expr.VerdictReturn} }

// IsProtocol matches one protocol.
func IsProtocol(proto byte) []expr.Any {
	return []expr.Any{LoadProtocol(FirstRegister), Equal([]byte{proto})}
}

// Goto sends the packet to a chain without return.
func Goto(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

// InSet matches what is in the first register against a set.
func InSet(set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: FirstRegister, SetName: set.Name, SetID: set.ID}
}

// NotInSet is the opposite of InSet.
func NotInSet(set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: FirstRegister, SetName: set.Name, SetID: set.ID, Invert: true}
}

// Concat joins the parts of a rule.
func Concat(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// FamilyName returns what nft calls the family at a place in Families.
func FamilyName(i int) string {
	if i == 0 {
		return "ip"
	}
	return "ip6"
}

// InState matches packets in one of conntrack's states.
func InState(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: FirstRegister, Key: expr.CtKeySTATE},
		Mask(Native32(bit)),
		NotEqual(make([]byte, 4)),
	}
}

// Native32 returns a number in the byte order of this host.
func Native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// LoadServiceAddress loads VIP . protocol.
func (f *Family) LoadServiceAddress() []expr.Any {
	return []expr.Any{f.LoadDestination(RegisterAt(0)), LoadProtocol(RegisterAt(f.Size))}
}

// LoadService loads VIP . protocol . port.
func (f *Family) LoadService() []expr.Any {
	return append(f.LoadServiceAddress(), LoadPort(RegisterAt(f.Size+4)))
}

// RoutedToHost matches, in the prerouting hook, what the host's routing
// delivers to the host itself: a pool's route, or an address of its own. A
// packet to a neighbour, or to be sent on, has a device to leave by.
func RoutedToHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: FirstRegister, ResultOIF: true, FlagDADDR: true},
		Equal(make([]byte, 4)),
	}
}

// SentToHost matches, in the output hook, what stays on the host: it leaves by
// the loopback device, which is number 1 in every network namespace.
func SentToHost() []expr.Any {
	return []expr.Any{
		LoadMeta(expr.MetaKeyOIF),
		Equal(binary.NativeEndian.AppendUint32(nil, 1)),
	}
}
