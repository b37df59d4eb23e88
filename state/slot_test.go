package state

import (
	"net/netip"
	"testing"
)

// slotWorld is an index with one owner, whose slots are changed by hand.
type slotWorld struct {
	index  *index
	stream *stream
	clock  testClock
}

func newSlotWorld() *slotWorld {
	w := &slotWorld{stream: newStream("a")}
	w.stream.status = Alive
	w.index = newIndex("net", newBelief(&w.clock))
	return w
}

func (w *slotWorld) entry(version uint64, ip string) *Entry {
	ep := Endpoint{IP4: netip.MustParseAddr(ip), Name: "box.internal"}
	e, err := newEntry(w.stream, Record{
		Kind: KindEndpoint, Key: "t1", Group: "web", Version: version, Body: string(AppendEndpoint(nil, &ep)),
	})
	if err != nil {
		panic(err)
	}
	return e
}

// set makes e, which may be nil, the current entry of a slot.
func (w *slotWorld) set(sl *slot, e *Entry) {
	was := sl.current
	if sl.current = e; e != nil {
		w.stream.live[e.mapKey()] = sl
	} else {
		delete(w.stream.live, was.mapKey())
	}
	w.index.update(sl, was)
}

// What readers see stays as it is until the next publication, whatever happens to
// a slot in between; entries are handed to readers as they are.
func TestSlotChangesAtPublicationOnly(t *testing.T) {
	here, there := netip.MustParseAddr("10.1.0.7"), netip.MustParseAddr("10.1.0.8")
	for name, after := range map[string]struct {
		change func(w *slotWorld, sl *slot)
		at     netip.Addr // where the endpoint is seen in the end; zero: nowhere
	}{
		"moved":           {func(w *slotWorld, sl *slot) { w.set(sl, w.entry(2, "10.1.0.8")) }, there},
		"restated":        {func(w *slotWorld, sl *slot) { w.set(sl, w.entry(2, "10.1.0.7")) }, here},
		"gone":            {func(w *slotWorld, sl *slot) { w.set(sl, nil) }, netip.Addr{}},
		"restated, gone":  {func(w *slotWorld, sl *slot) { w.set(sl, w.entry(2, "10.1.0.7")); w.set(sl, nil) }, netip.Addr{}},
		"gone, back":      {func(w *slotWorld, sl *slot) { w.set(sl, nil); w.set(&slot{}, w.entry(2, "10.1.0.7")) }, here},
		"moved, and back": {func(w *slotWorld, sl *slot) { w.set(sl, w.entry(2, "10.1.0.8")); w.set(sl, w.entry(3, "10.1.0.7")) }, here},
		"owner dead":      {func(w *slotWorld, sl *slot) { w.stream.status = Dead; w.index.updateClass(sl) }, netip.Addr{}},
		"moved, then dead": {func(w *slotWorld, sl *slot) {
			w.set(sl, w.entry(2, "10.1.0.8"))
			w.stream.status = Dead
			w.index.updateClass(sl)
		}, netip.Addr{}},
	} {
		t.Run(name, func(t *testing.T) {
			w, sl := newSlotWorld(), &slot{}
			first := w.entry(1, "10.1.0.7")
			w.set(sl, first)
			w.index.publish(1)
			after.change(w, sl)
			s := w.index.Service("web")
			if s.Members.Len() != 1 || s.Members.At(0) != first || w.index.ByIP(here).Endpoint != first ||
				w.index.Task("t1") != first || w.index.Lookup("box.internal").Endpoints[0] != first {
				t.Fatal("readers see a change that is not published")
			}
			w.index.publish(2)
			for _, a := range []netip.Addr{here, there} {
				if e := w.index.ByIP(a).Endpoint; (e != nil) != (a == after.at) {
					t.Errorf("at %s is %v", a, e)
				}
			}
			found := w.index.Lookup("box.internal").Kind == MatchEndpoint
			if s = w.index.Service("web"); found != after.at.IsValid() || (w.index.Task("t1") != nil) != found ||
				(s != nil && s.Members.Len() == 1) != found {
				t.Errorf("in the end it is found: %v; service %+v", found, s)
			}
		})
	}
}
