package nft

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"

	"meshd/lb"
)

// Check returns how the helpers' part of the kernel differs from what they
// left there: sysctls, chains and rules, the sets of the pools, marks, routes.
func (h *Helpers) Check() ([]lb.Finding, error) {
	found, err := CheckSysctls(h.cfg.NetNS, h.sysctls())
	if err != nil {
		return found, err
	}
	for i := range families {
		more, err := h.checkFamily(i)
		found = append(found, more...)
		if err != nil {
			return found, err
		}
	}
	served, err := h.checkServed()
	if err != nil {
		return append(found, served...), err
	}
	ways, err := h.checkWays()
	return slices.Concat(found, served, ways), err
}

// sysctls returns the settings that the helpers made.
func (h *Helpers) sysctls() []Sysctl {
	if h.cfg.Local {
		return nil
	}
	all := []Sysctl{{Key: "net/ipv4/ip_forward", Value: "1"}}
	for p := range h.pools {
		if p.Addr().Is6() {
			return append(all, Sysctl{Key: "net/ipv6/conf/all/forwarding", Value: "1"})
		}
	}
	return all
}

// checkFamily looks at the rules and sets of one address family.
func (h *Helpers) checkFamily(i int) ([]lb.Finding, error) {
	found, err := h.book[i].check(h.sock)
	if err != nil || slices.ContainsFunc(found, func(f lb.Finding) bool { return f.Area == lb.AreaTable }) {
		return found, err
	}
	pools, err := h.checkPools(i)
	if err != nil {
		return found, err
	}
	marks, err := h.checkMarks(i)
	return slices.Concat(found, pools, marks), err
}

// checkPools compares the set of the pools, which guard and masquerade use.
func (h *Helpers) checkPools(i int) ([]lb.Finding, error) {
	elems, err := h.sock.nft.GetSetElements(h.pool[i])
	if err != nil {
		return nil, explain("read the pools back", err)
	}
	have := map[string]bool{}
	for _, e := range elems {
		have[boundary(e)] = true
	}
	var missing []string
	for _, p := range outermost(h.pools) {
		if familyIndex(p.Addr()) != i {
			continue
		}
		there := true
		for _, e := range poolElements(p) {
			there = there && have[boundary(e)]
			delete(have, boundary(e))
		}
		if !there {
			missing = append(missing, p.String())
		}
	}
	delete(have, boundary(nftables.SetElement{Key: make([]byte, families[i].size), IntervalEnd: true})) // nft's own filler
	set := fmt.Sprintf("set pool of nftables table %s %s", familyName(i), helperTable)
	var found []lb.Finding
	if len(missing) > 0 {
		found = append(found, lb.Finding{
			Area: lb.AreaSet, Kind: lb.FindingMissing, What: set,
			Want: strings.Join(missing, ", "),
		})
	}
	if len(have) > 0 {
		found = append(found, lb.Finding{
			Area: lb.AreaSet, Kind: lb.FindingExtra, What: set + " (more)",
			Found: "an interval with a boundary at " + strings.Join(slices.Sorted(maps.Keys(have)), ", "),
		})
	}
	return found, nil
}

// boundary names the start or the end of an interval.
func boundary(e nftables.SetElement) string {
	a, _ := netip.AddrFromSlice(e.Key)
	if e.IntervalEnd {
		return "end " + a.String()
	}
	return a.String()
}

// checkMarks compares the map of marks.
func (h *Helpers) checkMarks(i int) ([]lb.Finding, error) {
	if h.mark[i] == nil {
		return nil, nil
	}
	have, err := h.readMarks(i, h.mark[i])
	if err != nil {
		return nil, err
	}
	var found []lb.Finding
	for k, want := range h.marks {
		if familyIndex(k.VIP) != i {
			continue
		}
		got, there := have[k]
		delete(have, k)
		f := lb.Finding{
			Area: lb.AreaMark, Kind: lb.FindingChanged, What: "mark of " + k.String(), Found: markText(got),
			Want: markText(want),
		}
		switch {
		case !there:
			f.Kind, f.Found = lb.FindingMissing, ""
			found = append(found, f)
		case got != want:
			found = append(found, f)
		}
	}
	for k, got := range have {
		found = append(found, lb.Finding{
			Area: lb.AreaMark, Kind: lb.FindingExtra, What: "mark of " + k.String(),
			Found: markText(got),
		})
	}
	return found, nil
}

func markText(mark uint32) string { return fmt.Sprintf("%#x", mark) }

func familyName(i int) string {
	if i == 0 {
		return "ip"
	}
	return "ip6"
}

// ruleBook remembers the rules of a table, to notice changes of them.
type ruleBook struct {
	family byte
	table  string // as "meshd"
	name   string // as "ip meshd"
	chains map[string][]uint64
}

// read remembers the rules of some chains as they are now: as we have just
// made them.
func (b *ruleBook) read(s *sockets, chains ...string) error {
	now, err := s.handles(b.family, b.table)
	if err != nil {
		return explain("read rules back", err)
	}
	b.chains = make(map[string][]uint64, len(chains))
	for _, chain := range chains {
		b.chains[chain] = now[chain]
	}
	return nil
}

// forget makes the next check learn a chain anew: it was just written.
func (b *ruleBook) forget(chain string) { delete(b.chains, chain) }

// check compares the rules with the remembered ones. Chains that are wanted
// and not known yet have one rule each.
func (b *ruleBook) check(s *sockets, wanted ...string) ([]lb.Finding, error) {
	chains, err := s.nft.ListChainsOfTableFamily(nftables.TableFamily(b.family))
	if err != nil {
		return nil, explain("list chains", err)
	}
	now, err := s.handles(b.family, b.table)
	if err != nil {
		return nil, explain("list rules", err)
	}
	var found []lb.Finding
	for _, chain := range wanted {
		if _, known := b.chains[chain]; !known && len(now[chain]) <= 1 {
			b.chains[chain] = now[chain]
		}
	}
	for _, chain := range slices.Sorted(maps.Keys(b.chains)) {
		if !hasChains(chains, b.table, chain) {
			found = append(found, lb.Finding{
				Area: lb.AreaTable, Kind: lb.FindingMissing, What: fmt.Sprintf("chain %s of nftables table %s", chain, b.name),
			})
			continue
		}
		found = append(found, b.compare(chain, now[chain])...)
	}
	return found, nil
}

// compare returns the rules of a chain that are gone, and those that came.
func (b *ruleBook) compare(chain string, now []uint64) []lb.Finding {
	var found []lb.Finding
	where := fmt.Sprintf("chain %s of nftables table %s", chain, b.name)
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

// Check implements lb.Driver. Its cost grows with the number of different
// numbers of backends, not with services.
func (d *Driver) Check(context.Context) ([]lb.Finding, error) {
	if d.help == nil {
		return nil, fmt.Errorf("%w: not set up", lb.ErrDrift)
	}
	found, err := d.help.Check()
	if err != nil {
		return found, err
	}
	classes := make([]string, 0, len(d.classes))
	for cl := range d.classes {
		classes = append(classes, cl.name())
	}
	more, err := d.layout.book.check(d.help.sock, classes...)
	return append(found, more...), err
}

// Number implements lb.Numbered.
func (d *Driver) Number(context.Context) (uint64, error) { return d.help.Number() }

// Number returns that of the namespace's ruleset, which every change of it
// moves. It may be called before Setup, and on a nil receiver.
func (h *Helpers) Number() (uint64, error) {
	if h == nil {
		return 0, fmt.Errorf("%w: not set up", lb.ErrDrift)
	}
	n, err := h.sock.generation()
	return uint64(n), err
}

// Untouched implements lb.Watchful.
func (d *Driver) Untouched(context.Context) bool {
	if d.help == nil || d.help.sock.seen == 0 {
		return false
	}
	now, err := d.help.sock.generation()
	return err == nil && now == d.help.sock.seen
}
