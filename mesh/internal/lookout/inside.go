package lookout

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"meshd/lb/hostcheck"
)

// Sandboxes are looked into some at a time: some of those in which something was found
// last, and the next ones of the rest.
const (
	sandboxesPerTurn = 16
	sandboxesFound   = 8                      // per turn, of those with findings
	sandboxesAsked   = 64                     // when a person asks
	sandboxesShown   = 10                     // whose findings are shown; of the others there is their number
	insideTime       = 20 * time.Millisecond  // of one turn; a look that has begun is finished
	insideTimeout    = 100 * time.Millisecond // of one look, at least
)

// insideLooks is what was found inside of sandboxes. Whoever looks owns it.
type insideLooks struct {
	last  string                         // the sandbox that had its turn last
	found map[string][]hostcheck.Finding // by sandbox; none is empty
}

// lookInside looks into some sandboxes, at most so many, and returns what is known of
// all.
func (l *Lookout) lookInside(ctx context.Context, most int, limit time.Duration) []hostcheck.Finding {
	s := &l.sandboxes
	names := l.cfg.Host.Sandboxes()
	for name := range s.found {
		if _, there := slices.BinarySearch(names, name); !there {
			delete(s.found, name)
		}
	}
	end := time.Now().Add(limit)
	again, turn := s.next(names, most)
	for i, name := range slices.Concat(again, turn) {
		if ctx.Err() != nil || time.Now().After(end) {
			break
		}
		found, ok := l.cfg.Host.LookInside(ctx, name, max(limit, insideTimeout))
		l.count(func(c *Counts) { c.Inside++ })
		if i >= len(again) {
			s.last = name
		}
		switch {
		case !ok:
		case len(found) == 0:
			delete(s.found, name)
		default:
			s.found[name] = found
		}
	}
	return s.all()
}

// next returns the sandboxes of this turn: some of those in which something was found,
// and those that follow the last one of the turn before. names are sorted.
func (s *insideLooks) next(names []string, most int) (again, turn []string) {
	for _, name := range names {
		if len(s.found[name]) > 0 && len(again) < sandboxesFound {
			again = append(again, name)
		}
	}
	from, _ := slices.BinarySearchFunc(names, s.last, func(name, last string) int {
		return cmp.Or(cmp.Compare(name, last), -1) // behind it
	})
	for i := range names {
		if name := names[(from+i)%len(names)]; len(turn) < most && !slices.Contains(again, name) {
			turn = append(turn, name)
		}
	}
	return again, turn
}

// all returns the findings, sorted by sandbox, no more than a status can hold.
func (s *insideLooks) all() (all []hostcheck.Finding) {
	names := make([]string, 0, len(s.found))
	for name := range s.found {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if i == sandboxesShown {
			return append(all, hostcheck.Finding{
				Code: s.found[name][0].Code, Severity: hostcheck.Warning, Document: "OPERATIONS: When the host is against it",
				What: "there is something against meshd inside of " + strconv.Itoa(len(names)-i) + " more sandboxes",
			})
		}
		all = append(all, s.found[name]...)
	}
	return all
}
