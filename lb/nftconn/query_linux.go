package nftconn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What google/nftables does not ask the kernel.

// Number returns the number of the namespace's ruleset: each transaction,
// whoever commits it, adds one.
func (c *Conn) Number() (gen uint32, err error) {
	err = c.queries.ask(SubsystemNftables|unix.NFT_MSG_GETGEN, unix.NFPROTO_UNSPEC, 0, nil, func(msg []byte) error {
		return EachAttribute(msg, func(kind uint16, data []byte) error {
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

// ReadWhole calls read, which reads all that the driver wrote, until nobody
// wrote meanwhile, or a few times: what others write all the time is hardly in
// our tables, and the next audit looks again, because their writes show.
func (c *Conn) ReadWhole(read func() error) error {
	for range readTries {
		before, err := c.Number()
		if err != nil {
			return err
		}
		c.seen = before
		if err = read(); err != nil && !errors.Is(err, ErrInterrupted) {
			return err
		}
		if after, err := c.Number(); err == nil && after == before {
			break
		}
	}
	return nil
}

// CommitLarge is commit for a transaction of many elements.
func (c *Conn) CommitLarge() error { return c.listener.RunUnsubscribed(c.Number, c.Commit) }

// Commit sends the open transaction, and goes on knowing the ruleset as far as
// nobody else has changed it meanwhile.
func (c *Conn) Commit() error {
	if c.seen == 0 {
		return c.Nftables.Flush()
	}
	before, err := c.Number()
	if err != nil {
		before = 0
	}
	if err := c.Nftables.Flush(); err != nil {
		c.seen = 0
		return err
	}
	c.wrote(before)
	return nil
}

// wrote records that one transaction of ours was committed to the ruleset of
// that number.
func (c *Conn) wrote(before uint32) {
	after, err := c.Number()
	switch {
	case err != nil || before != c.seen:
		c.seen = 0
	case after == before || after == before+1:
		c.seen = after
	default:
		c.seen = 0
	}
}

// Handles returns the handles of a table's rules, by chain. A rule that was
// deleted and added again, or replaced, has another handle.
func (c *Conn) Handles(family byte, table string) (map[string][]uint64, error) {
	var chains map[string][]uint64
	attrs := []netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: []byte(table + "\x00")}}
	err := ErrInterrupted
	for try := 0; try < readTries && errors.Is(err, ErrInterrupted); try++ {
		chains = map[string][]uint64{}
		err = c.queries.ask(SubsystemNftables|unix.NFT_MSG_GETRULE, family, netlink.Dump, attrs, func(msg []byte) error {
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
	err = EachAttribute(msg, func(kind uint16, data []byte) error {
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

// Untouched reports whether nobody has written to the ruleset since this connection
// wrote or read it.
func (c *Conn) Untouched() bool {
	if c.seen == 0 {
		return false
	}
	now, err := c.Number()
	return err == nil && now == c.seen
}
