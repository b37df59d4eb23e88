package sim

// CutOff makes the directed link drop what c says; 0 mends it.
func (w *World) CutOff(from, to int, c Cut) {
	p := pair{int32(from), int32(to)}
	if c == 0 {
		delete(w.cuts, p)
	} else {
		w.cuts[p] = c
	}
	w.oracle.changed()
}

// Partition cuts every link between nodes whose group differs.
func (w *World) Partition(group func(i int) int) {
	for i := range w.nodes {
		for j := range w.nodes {
			if group(i) != group(j) {
				w.cuts[pair{int32(i), int32(j)}] = CutAll
			}
		}
	}
	w.oracle.changed()
}

// Heal mends every link.
func (w *World) Heal() {
	clear(w.cuts)
	clear(w.links)
	w.oracle.changed()
}

// SetLink gives one directed link other properties.
func (w *World) SetLink(from, to int, l Link) { w.links[pair{int32(from), int32(to)}] = &l }

// SetLinks gives every link that has none of its own other properties.
func (w *World) SetLinks(l Link) { w.opt.Link = l }
