package nftconn

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"meshd/lb"
)

// FindSet returns what the kernel says of a set of an existing table, nil if it
// is not there. (The error of reading a missing one does not tell that it is
// missing.)
func (c *Conn) FindSet(set *nftables.Set) (*nftables.Set, error) {
	all, err := c.Nftables.GetSets(set.Table)
	if err != nil {
		return nil, Explain("list sets", err)
	}
	if i := slices.IndexFunc(all, func(o *nftables.Set) bool { return o.Name == set.Name }); i >= 0 {
		return all[i], nil
	}
	return nil, nil
}

// SameKeys reports whether the keys of two sets are of one shape.
func SameKeys(a, b *nftables.Set) bool { return a.KeyType.GetNFTMagic() == b.KeyType.GetNFTMagic() }

// Elements returns the elements of a set of an existing table; those of a
// missing one, as another version may have left it, are none.
func (c *Conn) Elements(set *nftables.Set) ([]nftables.SetElement, error) {
	there, err := c.FindSet(set)
	if err != nil || there == nil {
		return nil, err
	}
	elems, err := c.Nftables.GetSetElements(set)
	return elems, Explain("read set "+set.Name, err)
}

// HasTable reports whether a table is there.
func (c *Conn) HasTable(t *nftables.Table) (bool, error) {
	list, err := c.Nftables.ListTablesOfFamily(t.Family)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return false, nil // a kernel without it
	}
	if err != nil {
		return false, Explain("list tables", err)
	}
	return slices.ContainsFunc(list, func(o *nftables.Table) bool { return o.Name == t.Name }), nil
}

// DropTable deletes a table if it is there.
func (c *Conn) DropTable(t *nftables.Table) error {
	there, err := c.HasTable(t)
	if err != nil || !there {
		return err
	}
	c.Nftables.DelTable(t)
	return Explain("delete table "+t.Name, c.Commit())
}

// TableText names a table in messages.
func TableText(t *nftables.Table) string {
	name := map[nftables.TableFamily]string{
		nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
		nftables.TableFamilyINet: "inet",
	}[t.Family]
	return fmt.Sprintf("nftables table %s %s", name, t.Name)
}

// RemakeChain creates a chain, or takes the rules out of the one that is there,
// as part of the open transaction.
func RemakeChain(c *nftables.Conn, chain *nftables.Chain) *nftables.Chain {
	c.AddChain(chain)
	c.FlushChain(chain)
	return chain
}

// ElementsPerMessage keeps a message's attributes below 64 KiB, where their
// 16-bit length wraps silently.
const ElementsPerMessage = 500

// EachChunk calls do with the elements of each set, at most ElementsPerMessage of them at
// a time.
func EachChunk(changes map[*nftables.Set][]nftables.SetElement,
	do func(*nftables.Set, []nftables.SetElement) error,
) error {
	for set, elems := range changes {
		for len(elems) > 0 {
			n := min(len(elems), ElementsPerMessage)
			if err := do(set, elems[:n]); err != nil {
				return err
			}
			elems = elems[n:]
		}
	}
	return nil
}

// AsDrift wraps with lb.ErrDrift the errors that mean that the kernel does not hold
// what we wrote.
func AsDrift(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: %w", lb.ErrDrift, err)
	}
	return err
}
