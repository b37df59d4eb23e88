package registry

import "meshd/state"

// statement collects the changes of several updates and commits them together, so that
// claims are computed once per network and not once per update.
type statement struct {
	verdicts *verdicts // that are not on disk yet
	order    []string  // networks, as they come
	waiting  map[string][]*update
	asked    map[[2]string]bool // networks and services whose settings or address an update asked for
}

func (s *statement) add(c Core, u *update) {
	if s.asked[[2]string{u.network, u.service}] {
		s.flush(c)
	}
	if s.waiting == nil {
		s.waiting, s.asked = map[string][]*update{}, map[[2]string]bool{}
	}
	if u.prepare != nil {
		asked, err := u.prepare(c)
		if u.err = err; err != nil {
			return
		}
		s.asked[[2]string{u.network, u.service}] = asked
	} else if len(u.changes) == 0 {
		return
	}
	if s.waiting[u.network] == nil {
		s.order = append(s.order, u.network)
	}
	s.waiting[u.network] = append(s.waiting[u.network], u)
}

// flush commits what waits. If a network's changes are refused as a whole, each update
// is committed by itself, so that one does not hold up the others.
func (s *statement) flush(c Core) {
	for _, name := range s.order {
		us := s.waiting[name]
		var all []state.Change
		for _, u := range us {
			s.verdicts.apply(name, u.changes)
			all = append(all, u.changes...)
		}
		if c.Commit(name, all) == nil {
			continue
		}
		for _, u := range us {
			u.err = c.Commit(name, u.changes)
		}
	}
	s.order, s.waiting, s.asked = nil, nil, nil
}
