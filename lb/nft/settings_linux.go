package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"meshd/lb"
)

// storedSettings is what class and slots leave out of a service. The kernel holds it as
// well, so that another process takes over the whole of it (L1): as a comment of the
// service's element, and as elements of the backends' map with slot numbers that are
// never picked.
type storedSettings struct {
	comment string
	parked  []lb.Backend // backends without slots, or with other weights than their share of them
}

func (m storedSettings) equal(o storedSettings) bool {
	return m.comment == o.comment && slices.Equal(m.parked, o.parked)
}

const (
	firstParked = 1 << 31 // the slot number of the first parked backend
	maxParked   = 1 << 16 // how many are believed when read back
)

// settingsOf returns what is stored of a service with these slots.
func settingsOf(s *lb.Service, slots []netip.AddrPort) storedSettings {
	unit := uint32(0)
	for _, b := range s.Backends {
		unit = uint32(gcd(int(unit), int(b.Weight)))
	}
	m := storedSettings{comment: commentOf(s, hashed(s) && len(slots) > 0, max(unit, 1))}
	weights := map[netip.AddrPort]uint32(nil)
	if !plain(s, slots, unit) {
		weights = weightsOf(slots, hashed(s), unit)
	}
	for _, b := range s.Backends {
		if b.Weight == 0 || weights != nil && weights[b.Addr] != b.Weight {
			m.parked = append(m.parked, b)
		}
	}
	return m
}

// plain reports whether every backend with a weight has one slot and the
// weight unit, as almost always.
func plain(s *lb.Service, slots []netip.AddrPort, unit uint32) bool {
	live := 0
	for _, b := range s.Backends {
		if b.Weight == 0 {
			continue
		}
		if live++; b.Weight != unit {
			return false
		}
	}
	return live == len(slots) && !hashed(s)
}

// weightsOf returns the weights that the slots amount to, in units; where
// clients are hashed, slots do not tell weights, and every backend has one unit.
func weightsOf(slots []netip.AddrPort, hash bool, unit uint32) map[netip.AddrPort]uint32 {
	shares := map[netip.AddrPort]uint32{}
	for _, a := range slots {
		if a.IsValid() {
			shares[a]++
		}
	}
	divisor := 0
	for _, n := range shares {
		divisor = gcd(divisor, int(n))
	}
	for a, n := range shares {
		shares[a] = n / uint32(divisor) * unit
		if hash {
			shares[a] = unit
		}
	}
	return shares
}

// defaultScheduler is that of a comment that does not name one.
func defaultScheduler(hash bool) string {
	if hash {
		return "mh"
	}
	return "wrr"
}

// commentOf writes what is not the default of the class, as "wrr affinity 1m30s
// weight 5".
func commentOf(s *lb.Service, hash bool, unit uint32) string {
	scheduler := strings.TrimSuffix(s.Scheduler, damaged)
	if scheduler == defaultScheduler(hash) && s.Affinity == 0 && unit == 1 {
		return ""
	}
	comment := scheduler
	if s.Affinity > 0 {
		comment += " affinity " + s.Affinity.String()
	}
	if unit > 1 {
		comment += fmt.Sprintf(" weight %d", unit)
	}
	return comment
}

// settings is what a comment says.
type settings struct {
	scheduler string
	affinity  time.Duration
	unit      uint32
}

// readComment is the inverse of commentOf; ok is false for a comment that is not ours.
func readComment(comment string, hash bool) (s settings, ok bool) {
	s = settings{scheduler: defaultScheduler(hash), unit: 1}
	words := strings.Fields(comment)
	if len(words) == 0 {
		return s, comment == ""
	}
	s.scheduler, words = words[0], words[1:]
	for ; len(words) >= 2; words = words[2:] {
		switch words[0] {
		case "affinity":
			d, err := time.ParseDuration(words[1])
			if err != nil || d <= 0 {
				return s, false
			}
			s.affinity = d
		case "weight":
			n, ok := parseWeight(words[1])
			if !ok || n == 0 {
				return s, false
			}
			s.unit = n
		default:
			return s, false
		}
	}
	return s, len(words) == 0
}

// maxWeight is the largest weight that a service may have.
const maxWeight = 65535

func parseWeight(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n <= maxWeight
}

// parkedComment is the comment of a parked backend's element.
func parkedComment(b lb.Backend) string { return fmt.Sprintf("weight %d", b.Weight) }

func readParkedComment(s string) (weight uint32, ok bool) {
	n, found := strings.CutPrefix(s, "weight ")
	weight, ok = parseWeight(n)
	return weight, ok && found
}

// damaged is appended to the scheduler of a service whose elements are not as
// this driver writes them: no service that is wanted has such a scheduler, so
// it is written again.
const damaged = "?"

// describe makes the entry's service from what was read of it.
func (e *entry) describe() {
	s, ok := readComment(e.settings.comment, e.class.hash)
	e.svc.Scheduler, e.svc.Affinity = s.scheduler, s.affinity
	weights := weightsOf(e.slots, e.class.hash, s.unit)
	for _, b := range e.settings.parked {
		if b.Addr.IsValid() {
			weights[b.Addr] = b.Weight
		}
	}
	e.svc.Backends = make([]lb.Backend, 0, len(weights))
	for a, w := range weights {
		e.svc.Backends = append(e.svc.Backends, lb.Backend{Addr: a, Weight: w})
	}
	slices.SortFunc(e.svc.Backends, func(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) })
	if !ok || !e.whole() {
		e.svc.Scheduler += damaged
	}
}

// whole reports whether the elements are those of the service that they
// describe.
func (e *entry) whole() bool {
	if !e.there || len(e.slots) != int(e.class.slots) || slices.Contains(e.slots, netip.AddrPort{}) {
		return false
	}
	if e.class.hash && !slices.Equal(e.slots, maglevOf(e.svc)) {
		return false
	}
	return settingsOf(e.svc, e.slots).equal(e.settings)
}

// maglevOf returns the slots of a service that hashes.
func maglevOf(s *lb.Service) []netip.AddrPort {
	if !hashed(s) {
		return nil
	}
	return assignSlots(s, nil)
}
