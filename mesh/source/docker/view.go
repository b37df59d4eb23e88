package docker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/mesh/control"
	"meshd/mesh/source"
)

// showEvery is how often what is said of containers is made anew at most.
const showEvery = 100 * time.Millisecond

// maxNamed bounds how many containers a text names.
const maxNamed = 3

// show makes what Units and the conditions say.
func (w *watch) show(now time.Time, next *time.Time) {
	if !w.changed {
		return
	}
	if at := w.shownAt.Add(showEvery); now.Before(at) {
		earlier(next, at)
		return
	}
	w.changed, w.shownAt = false, now
	var units []control.SourceUnit
	states := map[string]int{}
	var refused []string
	for _, id := range slices.Sorted(maps.Keys(w.entries)) {
		e := w.entries[id]
		if e.d == nil && e.trouble == "" {
			continue
		}
		u := e.show()
		w.log(e, &u, now)
		u.Since = e.since
		states[u.State]++
		if u.State == control.UnitRefused {
			refused = append(refused, u.Unit+": "+joined(u.Problems))
		}
		units = append(units, u)
	}
	slices.SortStableFunc(units, func(a, b control.SourceUnit) int { return cmp.Compare(a.Unit, b.Unit) })
	w.cfg.Condition("docker labels", refusedText(refused, w.shorted))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.units = units
	w.stats.Containers, w.stats.Refused = states, len(refused)
	w.stats.Waiting = len(w.queue) + w.inspects + w.handing
}

// refusedText names some of the containers that ask for what cannot be.
func refusedText(refused []string, shorted int) string {
	text := ""
	if n := len(refused); n > 0 {
		slices.Sort(refused)
		text = fmt.Sprintf("docker: %d containers ask for what cannot be, and are not registered (meshctl source ls): %s", n,
			strings.Join(refused[:min(n, maxNamed)], "; "))
		if n > maxNamed {
			text += " …"
		}
	}
	if shorted > 0 {
		text = strings.TrimPrefix(text+"; ", "; ") +
			fmt.Sprintf("docker: %d containers are more than the %d that are looked after", shorted, maxContainers)
	}
	return text
}

// show says what became of a container.
func (e *entry) show() control.SourceUnit {
	u := control.SourceUnit{Origin: source.Docker, Unit: e.id[:shortID], ID: e.id[:taskID], Problems: []string{}}
	add := func(texts ...string) {
		for _, t := range texts {
			if t != "" {
				u.Problems = append(u.Problems, t)
			}
		}
	}
	d := e.d
	if d == nil {
		u.State = control.UnitWaiting
		add(e.trouble)
		return u
	}
	u.Unit, u.Tasks = d.name, len(e.want)
	switch {
	case d.refused != "" || e.invalid != "":
		u.State, u.Tasks = control.UnitRefused, 0
	case d.left != "":
		u.State = control.UnitIgnored
	case !e.lives():
		u.State = control.UnitStopped
	case e.version != e.done || len(e.waiting) > 0:
		u.State = control.UnitWaiting
	default:
		u.State = control.UnitServed
	}
	add(d.refused, e.invalid, d.left, e.trouble, e.unboxed)
	add(e.waiting...)
	add(d.warnings...)
	return u
}

// log says what became of a container, when that changes for longer than a moment.
func (w *watch) log(e *entry, u *control.SourceUnit, now time.Time) {
	problems := joined(u.Problems)
	text := u.State + " " + problems
	if text == e.logged {
		return
	}
	if state, _, _ := strings.Cut(e.logged, " "); state != u.State || e.logged == "" {
		e.since = now
	}
	e.logged = text
	w.limiter.Do(now, func(before int) {
		args := []any{"container", u.Unit, "id", e.id[:shortID], "state", u.State, "tasks", u.Tasks}
		if before > 0 {
			args = append(args, "omitted", before)
		}
		if problems == "" {
			w.cfg.Log.Debug("a container is looked after", args...)
			return
		}
		w.cfg.Log.Warn("a container does not get all that its labels ask for", append(args, "problems", problems)...)
	})
}
