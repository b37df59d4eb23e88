package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What google/nftables does not ask the kernel.

// NFTA_GEN_ID, which unix does not name.
const attrGenerationID = 1

// dialQueries opens the socket for questions.
func (s *sockets) dialQueries() (*netlink.Conn, error) {
	var cfg netlink.Config
	if s.ns.IsOpen() {
		cfg.NetNS = int(s.ns)
	}
	return netlink.Dial(unix.NETLINK_NETFILTER, &cfg)
}

// query sends one message about nftables and returns what the kernel answers.
func (s *sockets) query(kind uint16, flags netlink.HeaderFlags, family byte, attrs ...netlink.Attribute) ([]netlink.Message, error) {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return nil, err
	}
	return s.queries.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...),
	})
}

// generation returns the number of the namespace's ruleset: each transaction,
// whoever commits it, adds one.
func (s *sockets) generation() (uint32, error) {
	reply, err := s.query(unix.NFT_MSG_GETGEN, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("number of the ruleset: %w", err)
	}
	for _, m := range reply {
		attrs, err := attributes(m)
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Type == attrGenerationID && len(a.Data) == 4 {
				return binary.BigEndian.Uint32(a.Data), nil
			}
		}
	}
	return 0, errors.New("number of the ruleset: not in the answer")
}

// attributes reads what follows the header of an nftables message.
func attributes(m netlink.Message) ([]netlink.Attribute, error) {
	const header = 4 // struct nfgenmsg
	if len(m.Data) < header {
		return nil, fmt.Errorf("nftables message of %d bytes", len(m.Data))
	}
	return netlink.UnmarshalAttributes(m.Data[header:])
}

// commit sends the open transaction, and goes on knowing the ruleset as far as
// nobody else has changed it meanwhile.
func (s *sockets) commit() error {
	if s.seen == 0 {
		return s.nft.Flush()
	}
	before, err := s.generation()
	if err != nil {
		before = 0
	}
	if err := s.nft.Flush(); err != nil {
		s.seen = 0
		return err
	}
	s.wrote(before)
	return nil
}

// wrote notes that one transaction of ours was committed to the ruleset of
// that number.
func (s *sockets) wrote(before uint32) {
	after, err := s.generation()
	switch {
	case err != nil || before != s.seen:
		s.seen = 0
	case after == before || after == before+1:
		s.seen = after
	default:
		s.seen = 0
	}
}

// handles returns the handles of a table's rules, by chain. A rule that was
// deleted and added again, or replaced, has another handle.
func (s *sockets) handles(family byte, table string) (map[string][]uint64, error) {
	reply, err := s.query(unix.NFT_MSG_GETRULE, netlink.Dump, family,
		netlink.Attribute{Type: unix.NFTA_RULE_TABLE, Data: []byte(table + "\x00")})
	if errors.Is(err, unix.ENOENT) {
		return map[string][]uint64{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("rules of table %s: %w", table, err)
	}
	chains := map[string][]uint64{}
	for _, m := range reply {
		attrs, err := attributes(m)
		if err != nil {
			return nil, err
		}
		chain, handle := "", uint64(0)
		for _, a := range attrs {
			switch {
			case a.Type == unix.NFTA_RULE_CHAIN && len(a.Data) > 0:
				chain = string(a.Data[:len(a.Data)-1])
			case a.Type == unix.NFTA_RULE_HANDLE && len(a.Data) == 8:
				handle = binary.BigEndian.Uint64(a.Data)
			}
		}
		chains[chain] = append(chains[chain], handle)
	}
	return chains, nil
}
