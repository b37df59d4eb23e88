package nftconn

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"

	"meshd/lb"
)

// RuleBook remembers the rules of a table, to notice changes of them.
type RuleBook struct {
	Family byte   // NFPROTO_IPV4, …
	Table  string // as "meshd"
	Name   string // as "ip meshd"

	chains map[string][]uint64
}

// Read remembers the rules of some chains as they are now: as we have just
// made them.
func (b *RuleBook) Read(c *Conn, chains ...string) error {
	now, err := c.Handles(b.Family, b.Table)
	if err != nil {
		return Explain("read rules back", err)
	}
	b.chains = make(map[string][]uint64, len(chains))
	for _, chain := range chains {
		b.chains[chain] = now[chain]
	}
	return nil
}

// Forget makes the next check learn a chain anew: it was just written.
func (b *RuleBook) Forget(chain string) { delete(b.chains, chain) }

// Check compares the rules with the remembered ones. Chains that are wanted
// and not known yet have one rule each.
func (b *RuleBook) Check(c *Conn, wanted ...string) ([]lb.Finding, error) {
	chains, err := c.Nftables.ListChainsOfTableFamily(nftables.TableFamily(b.Family))
	if err != nil {
		return nil, Explain("list chains", err)
	}
	now, err := c.Handles(b.Family, b.Table)
	if err != nil {
		return nil, Explain("list rules", err)
	}
	var found []lb.Finding
	for _, chain := range wanted {
		if _, known := b.chains[chain]; !known && len(now[chain]) <= 1 {
			b.chains[chain] = now[chain]
		}
	}
	for _, chain := range slices.Sorted(maps.Keys(b.chains)) {
		if !hasChains(chains, b.Table, chain) {
			found = append(found, lb.Finding{
				Area: lb.AreaTable, Kind: lb.FindingMissing, What: fmt.Sprintf("chain %s of nftables table %s", chain, b.Name),
			})
			continue
		}
		found = append(found, b.compare(chain, now[chain])...)
	}
	return found, nil
}

// compare returns the rules of a chain that are gone, and those that came.
func (b *RuleBook) compare(chain string, now []uint64) []lb.Finding {
	var found []lb.Finding
	where := fmt.Sprintf("chain %s of nftables table %s", chain, b.Name)
	for i, handle := range b.chains[chain] {
		if !slices.Contains(now, handle) {
			found = append(found, lb.Finding{
				Area: lb.AreaRule, Kind: lb.FindingMissing, What: fmt.Sprintf("rule %d of %s", i+1, where),
			})
		}
	}
	for i, handle := range now {
		if !slices.Contains(b.chains[chain], handle) {
			found = append(found, lb.Finding{
				Area: lb.AreaRule, Kind: lb.FindingExtra, What: fmt.Sprintf("rule in %s", where),
				Found: fmt.Sprintf("at place %d, handle %d", i+1, handle),
			})
		}
	}
	return found
}

func hasChains(chains []*nftables.Chain, table string, names ...string) bool {
	missing := len(names)
	for _, c := range chains {
		if c.Table.Name == table && slices.Contains(names, c.Name) {
			missing--
		}
	}
	return missing == 0
}
