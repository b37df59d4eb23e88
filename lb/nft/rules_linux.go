package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// family is what differs between IPv4 and IPv6 in rules and elements.
type family struct {
	digit   string // "4" or "6", the suffix of names
	nfproto byte
	src     uint32 // offset of the source address in the network header
	dst     uint32 // offset of the destination address
	size    uint32 // of an address in bytes
	addr    nftables.SetDatatype
	icmp    byte // protocol number of its ICMP
	echo    byte // ICMP type of an echo request

	portUnreachable byte // ICMP code
}

var families = [2]family{
	{
		digit: "4", nfproto: unix.NFPROTO_IPV4, src: 12, dst: 16, size: 4, addr: nftables.TypeIPAddr,
		icmp: unix.IPPROTO_ICMP, echo: 8, portUnreachable: 3,
	},
	{
		digit: "6", nfproto: unix.NFPROTO_IPV6, src: 8, dst: 24, size: 16, addr: nftables.TypeIP6Addr,
		icmp: unix.IPPROTO_ICMPV6, echo: 128, portUnreachable: 4,
	},
}

// familyIndex returns the place of the address's family in families.
func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// firstReg is the first of the kernel's 16 registers of 4 bytes (NFT_REG32_00).
// Parts of a concatenation lie in consecutive registers.
const firstReg = 8

// reg returns the register at an offset in bytes.
func reg(offset uint32) uint32 { return firstReg + offset/4 }

func (f *family) match() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: firstReg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: []byte{f.nfproto}},
	}
}

func (f *family) loadDst(r uint32) expr.Any {
	return &expr.Payload{DestRegister: r, Base: expr.PayloadBaseNetworkHeader, Offset: f.dst, Len: f.size}
}

func (f *family) loadSrc(r uint32) expr.Any {
	return &expr.Payload{DestRegister: r, Base: expr.PayloadBaseNetworkHeader, Offset: f.src, Len: f.size}
}

func loadL4Proto(r uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: r}
}

func loadPort(r uint32) expr.Any {
	return &expr.Payload{DestRegister: r, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// l4 matches one protocol.
func l4(proto byte) []expr.Any {
	return []expr.Any{loadL4Proto(firstReg), &expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: []byte{proto}}}
}

// to sends the packet to a chain without return.
func to(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

// inSet matches what is in the first register against a set.
func inSet(set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: firstReg, SetName: set.Name, SetID: set.ID}
}

// notInSet is the opposite of inSet.
func notInSet(set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: firstReg, SetName: set.Name, SetID: set.ID, Invert: true}
}

// rules concatenates parts of a rule.
func rules(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
