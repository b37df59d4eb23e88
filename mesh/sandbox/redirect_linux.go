package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// redirectTable, with all that is in it, belongs to meshd.
var redirectTable = &nftables.Table{Name: "meshd_dns", Family: nftables.TableFamilyIPv4}

// redirectPriority comes before the -100 of Docker's rules for its own name server
// at the same address: the first translation of a connection is the one that holds.
const redirectPriority = -110

func redirectChain() *nftables.Chain {
	priority := nftables.ChainPriority(redirectPriority)
	return &nftables.Chain{
		Table: redirectTable, Name: "output", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: &priority,
	}
}

func (n *Namespace) nft() (*nftables.Conn, error) {
	return nftables.New(nftables.WithNetNSFd(int(n.file.Fd())))
}

// Redirect makes port 53 of 127.0.0.11 lead to another port there, in one
// transaction, in place of any former one. Clients repeat the questions that are
// under way. Without nftables in the kernel, the error wraps errNoRedirect.
func (n *Namespace) Redirect(port uint16) error {
	c, err := n.nft()
	if err != nil {
		return err
	}
	c.AddTable(redirectTable) // deleting what is not there would fail
	c.DelTable(redirectTable)
	c.AddTable(redirectTable)
	chain := c.AddChain(redirectChain())
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		c.AddRule(&nftables.Rule{Table: redirectTable, Chain: chain, Exprs: redirectRule(proto, port)})
	}
	err = c.Flush()
	for _, missing := range []error{unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		if errors.Is(err, missing) {
			return fmt.Errorf("%w (%w)", errNoRedirect, err)
		}
	}
	if err != nil {
		return fmt.Errorf("redirect %s: %w", ServerAddr, err)
	}
	return n.forgetFlows()
}

// redirectRule is: ip daddr 127.0.0.11 PROTO dport 53 dnat to 127.0.0.11:PORT.
func redirectRule(proto byte, port uint16) []expr.Any {
	server, asked := ServerAddr.Addr().AsSlice(), binary.BigEndian.AppendUint16(nil, ServerAddr.Port())
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: server},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: asked},
		&expr.Immediate{Register: 1, Data: server},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}
}

// forgetFlows drops the conntrack entries of questions to the old port. Otherwise a
// client that asks from one port again and again would go on asking there.
func (n *Namespace) forgetFlows() error {
	h, err := n.routes()
	if err != nil {
		return err
	}
	defer h.Close()
	filter := &netlink.ConntrackFilter{}
	if err := filter.AddIP(netlink.ConntrackOrigDstIP, net.IP(ServerAddr.Addr().AsSlice())); err != nil {
		return err
	}
	if _, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filter); err != nil {
		return fmt.Errorf("forget old questions: %w", err)
	}
	return nil
}

// Redirected reports whether the rules of Redirect are in place: a container
// may flush them.
func (n *Namespace) Redirected(port uint16) (bool, error) {
	c, err := n.nft()
	if err != nil {
		return false, err
	}
	rules, err := c.GetRules(redirectTable, redirectChain())
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("list rules: %w", err)
	}
	want, found := binary.BigEndian.AppendUint16(nil, port), 0
	for _, r := range rules {
		for _, e := range r.Exprs {
			if i, ok := e.(*expr.Immediate); ok && bytes.Equal(i.Data, want) {
				found++
			}
		}
	}
	return found == 2, nil
}

// RemoveRedirect removes what Redirect made, if it is there.
func (n *Namespace) RemoveRedirect() error {
	c, err := n.nft()
	if err != nil {
		return err
	}
	c.AddTable(redirectTable)
	c.DelTable(redirectTable)
	if err := c.Flush(); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("remove redirect of %s: %w", ServerAddr, err)
	}
	return nil
}
