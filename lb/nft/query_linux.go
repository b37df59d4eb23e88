package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What google/nftables does not ask the kernel.

// generation returns the number of the namespace's ruleset: each transaction,
// whoever commits it, adds one.
func (s *sockets) generation() (gen uint32, err error) {
	err = s.queries.ask(nfTables|unix.NFT_MSG_GETGEN, unix.NFPROTO_UNSPEC, 0, nil, func(msg []byte) error {
		return eachAttr(msg, func(kind uint16, data []byte) error {
			if kind == unix.NFTA_GEN_ID && len(data) == 4 {
				gen = binary.BigEndian.Uint32(data)
			}
			return nil
		})
	})
	if err == nil && gen == 0 {
		err = errors.New("not in the answer")
	}
	if err != nil {
		return 0, fmt.Errorf("number of the ruleset: %w", err)
	}
	return gen, nil
}

// readTries bounds how often something is read again because it changed
// meanwhile.
const readTries = 3

// readWhole calls read, which reads all that the driver wrote, until nobody
// wrote meanwhile, or a few times: what others write all the time is hardly in
// our tables, and the next audit looks again, because their writes show.
func (s *sockets) readWhole(read func() error) error {
	for range readTries {
		before, err := s.generation()
		if err != nil {
			return err
		}
		s.seen = before
		if err = read(); err != nil && !errors.Is(err, errInterrupted) {
			return err
		}
		if after, err := s.generation(); err == nil && after == before {
			break
		}
	}
	return nil
}

// commitLarge is commit for a transaction of many elements.
func (s *sockets) commitLarge() error { return s.listener.RunUnsubscribed(s.generation, s.commit) }

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
	var chains map[string][]uint64
	attrs := []netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: []byte(table + "\x00")}}
	err := errInterrupted
	for try := 0; try < readTries && errors.Is(err, errInterrupted); try++ {
		chains = map[string][]uint64{}
		err = s.queries.ask(nfTables|unix.NFT_MSG_GETRULE, family, netlink.Dump, attrs, func(msg []byte) error {
			chain, handle, err := ruleHandle(msg)
			chains[chain] = append(chains[chain], handle)
			return err
		})
	}
	if errors.Is(err, unix.ENOENT) {
		return map[string][]uint64{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("rules of table %s: %w", table, err)
	}
	return chains, nil
}

// ruleHandle returns the chain and the handle of the rule in a message.
func ruleHandle(msg []byte) (chain string, handle uint64, err error) {
	err = eachAttr(msg, func(kind uint16, data []byte) error {
		switch {
		case kind == unix.NFTA_RULE_CHAIN:
			chain = string(bytes.TrimRight(data, "\x00"))
		case kind == unix.NFTA_RULE_HANDLE && len(data) == 8:
			handle = binary.BigEndian.Uint64(data)
		}
		return nil
	})
	return chain, handle, err
}
