package lb

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Area says what part of a kernel's load balancing a Finding or Remnant is of.
type Area string

// The areas.
const (
	AreaSysctl  Area = "sysctl"  // a setting of the namespace
	AreaTable   Area = "table"   // an nftables table of ours, or a chain of it
	AreaRule    Area = "rule"    // guard, masquerade, marks, or what finds a service
	AreaSet     Area = "set"     // the addresses of the pools, beside the rules
	AreaMark    Area = "mark"    // firewall marks of services for all ports (L3)
	AreaRoute   Area = "route"   // the local route of a pool (L2)
	AreaService Area = "service" // a virtual service and its settings
	AreaBackend Area = "backend" // a backend and its weight
)

// Areas returns all areas.
func Areas() []Area {
	return []Area{AreaSysctl, AreaTable, AreaRule, AreaSet, AreaMark, AreaRoute, AreaService, AreaBackend}
}

// FindingKind says in what way the kernel is not as it was left.
type FindingKind string

// The kinds of findings.
const (
	FindingMissing FindingKind = "missing" // ours, and gone
	FindingExtra   FindingKind = "extra"   // made by others, in what is ours
	FindingChanged FindingKind = "changed" // ours, with another value
)

// Finding is one difference between what was left in the kernel and what is there,
// which somebody else changed (L1). It is text for people.
type Finding struct {
	// The difference, as Check and Compare find it.

	Area  Area        // the part of the kernel
	Kind  FindingKind // missing, extra or changed
	What  string      // as "local route of pool 10.96.0.0/16"
	Found string      // what is there; "" if nothing
	Want  string      // what should be there; "" if nothing

	// What became of it, as the balancer finds after a repair.

	Repaired bool   // it is as it should be again
	Outcome  string // what Repaired does not say; may be empty

	key     Key            // of the service, for services and backends
	backend netip.AddrPort // for backends
}

// String formats the finding in one line.
func (f Finding) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", f.What, f.Kind)
	if f.Found != "" {
		fmt.Fprintf(&b, ", found %s", f.Found)
	}
	if f.Want != "" {
		fmt.Fprintf(&b, ", want %s", f.Want)
	}
	return b.String()
}

// Compare returns how the kernel's table differs from what it should be, in order
// of address. Both may be shadows or snapshots; labels are not compared.
func Compare(have, want *Table) []Finding {
	var all []Finding
	for _, prefix := range slices.SortedFunc(keysOf(have.Pools, want.Pools), comparePrefixes) {
		all = append(all, comparePool(have, want, prefix)...)
	}
	for _, k := range slices.SortedFunc(keysOf(have.Services, want.Services), Key.Compare) {
		all = append(all, compareService(k, have.Services[k], want.Services[k])...)
	}
	return all
}

// PoolRoute names the route of a pool in findings.
func PoolRoute(p Pool) string { return fmt.Sprintf("local route of pool %s", p.Prefix) }

// PoolSource formats what a pool's route says, for findings.
func PoolSource(p Pool) string {
	if !p.Src.IsValid() {
		return "no source address"
	}
	return "source address " + p.Src.String()
}

// keysOf yields the keys that are in either map, each once.
func keysOf[K comparable, V any](a, b map[K]V) iter.Seq[K] {
	both := make(map[K]struct{}, len(a)+len(b))
	for k := range a {
		both[k] = struct{}{}
	}
	for k := range b {
		both[k] = struct{}{}
	}
	return maps.Keys(both)
}

func comparePool(have, want *Table, prefix netip.Prefix) []Finding {
	h, there := have.Pools[prefix]
	w, wanted := want.Pools[prefix]
	f := Finding{Area: AreaRoute, What: PoolRoute(Pool{Prefix: prefix})}
	switch {
	case !there:
		f.Kind, f.Want = FindingMissing, PoolSource(w)
	case !wanted:
		f.Kind, f.Found = FindingExtra, PoolSource(h)
	case w.Src.IsValid() && h.Src != w.Src:
		f.Kind, f.Found, f.Want = FindingChanged, PoolSource(h), PoolSource(w)
	default:
		return nil
	}
	return []Finding{f}
}

func compareService(k Key, have, want *Service) []Finding {
	if have == want || have != nil && want != nil && have.Equal(want) { // almost always
		return nil
	}
	f := Finding{Area: AreaService, What: "service " + k.String(), key: k}
	switch {
	case have == nil:
		f.Kind, f.Want = FindingMissing, want.summary()
		return []Finding{f}
	case want == nil:
		f.Kind, f.Found = FindingExtra, have.summary()
		return []Finding{f}
	}
	var all []Finding
	if !have.sameSettings(want) {
		f.Kind, f.Found, f.Want = FindingChanged, have.settingsText(), want.settingsText()
		all = append(all, f)
	}
	return append(all, compareBackends(k, have, want)...)
}

func compareBackends(k Key, have, want *Service) []Finding {
	var all []Finding
	find := func(kind FindingKind, b Backend, found, wanted string) {
		all = append(all, Finding{
			Area: AreaBackend, Kind: kind, What: fmt.Sprintf("backend %s of service %s", b.Addr, k), Found: found, Want: wanted,
			key: k, backend: b.Addr,
		})
	}
	for _, w := range want.Backends {
		h, there := have.Backend(w.Addr)
		switch {
		case !there:
			find(FindingMissing, w, "", w.weightText())
		case h.Weight != w.Weight:
			find(FindingChanged, w, h.weightText(), w.weightText())
		}
	}
	for _, h := range have.Backends {
		if _, wanted := want.Backend(h.Addr); !wanted {
			find(FindingExtra, h, h.weightText(), "")
		}
	}
	return all
}

func (b Backend) weightText() string { return fmt.Sprintf("weight %d", b.Weight) }

// settingsText formats scheduler and affinity. Drivers append "?" to the scheduler
// of a service whose entry is incomplete, or has settings that meshd never makes.
func (s *Service) settingsText() string {
	name, odd := strings.CutSuffix(s.Scheduler, "?")
	if odd {
		name = "damaged " + name
	}
	if s.Affinity == 0 {
		return name
	}
	return fmt.Sprintf("%s, affinity %s", name, s.Affinity)
}

// summary formats the settings and the number of backends.
func (s *Service) summary() string {
	return fmt.Sprintf("%s with %d backends", s.settingsText(), len(s.Backends))
}

// Report is the outcome of one comparison with the kernel.
type Report struct {
	// What was compared.

	At       time.Time     // when the comparison began
	Took     time.Duration // until its end, repairs included
	Driver   string        // "" if there is none
	Full     bool          // services were read back, not only what is beside them
	Services int           // that were read back
	Backends int           // that were read back

	// What was found.

	Findings []Finding // at most maxFindings
	More     int       // findings beyond that
	Pending  int       // services with failed operations, which are tried again
	Error    string    // why the comparison is not complete; "" if it is
}

// Result sums the report up.
func (r *Report) Result() VerifyResult {
	switch {
	case r.Error != "":
		return VerifyError
	case len(r.Findings) > 0:
		return VerifyDrift
	}
	return VerifyOK
}

// maxFindings bounds a report, since after "ipvsadm -C" every service is missing.
const maxFindings = 1000

// mergeFindings adds findings of another source, without those whose area and name
// are in the list already.
func mergeFindings(all, more []Finding) []Finding {
	type name struct {
		area Area
		what string
	}
	known := make(map[name]bool, len(all))
	for _, f := range all {
		known[name{f.Area, f.What}] = true
	}
	for _, f := range more {
		if !known[name{f.Area, f.What}] {
			all = append(all, f)
		}
	}
	return all
}

// Remnant is something of ours in a kernel: what Teardown removes.
type Remnant struct {
	Area   Area
	What   string // as "virtual service 10.96.0.1:80/tcp"
	Detail string // as "2 backends"; may be empty
}

// String formats the remnant in one line.
func (r Remnant) String() string {
	if r.Detail == "" {
		return r.What
	}
	return r.What + " (" + r.Detail + ")"
}

// compareRemnants orders remnants by area, then by name.
func compareRemnants(a, b Remnant) int {
	return cmp.Or(slices.Index(Areas(), a.Area)-slices.Index(Areas(), b.Area), cmp.Compare(a.What, b.What))
}

// SortRemnants sorts the list by area and name, in place.
func SortRemnants(list []Remnant) { slices.SortFunc(list, compareRemnants) }
