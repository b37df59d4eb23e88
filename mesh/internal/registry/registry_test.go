package registry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"meshd/mesh/internal/store"
	"meshd/state"
)

// testBounds are those of a node without settings.
func testBounds() Bounds { return DefaultBounds() }

// fullRegistry returns a registry with everything in it.
func fullRegistry(now time.Time) *Snapshot {
	d := (&Snapshot{networks: map[string]*localNetwork{}}).draft()
	e := state.Endpoint{ID: "t1", Service: "web", IP4: netip.MustParseAddr("10.1.0.7"), Weight: 1}
	d.setTask("net", "t1", &savedTask{Service: "web", Body: state.AppendEndpoint(nil, &e)})
	claim := state.VIPClaim{Service: "old", VIP4: netip.MustParseAddr("10.96.1.2"), Birth: 7}
	d.setServices("net", map[string]*savedClaim{"old": {
		vip:   state.AppendVIPClaim(nil, claim),
		until: now.Add(20 * time.Hour),
	}})
	d.setDef("net", &networkDef{Subnet4: "10.96.0.0/16", Birth: 3})
	d.setCarried("other", &networkDef{Subnet4: "10.97.0.0/16", Birth: 4})
	d.remember(removedNetwork{
		name: "gone", birth: 5, lamport: 6, def: networkDef{Subnet4: "10.98.0.0/16"},
		until: now.Add(40 * time.Hour),
	}, 10)
	return d.done()
}

// memory is a Store that holds what it was given last as everything.
type memory struct{ all []store.Change }

func (m *memory) Write(_ []store.Change, all func() []store.Change) error { m.all = all(); return nil }

func (m *memory) Read(f func(bucket, key string, value []byte) error) error {
	for _, c := range m.all {
		if err := f(c.Bucket, c.Key, c.Value); err != nil {
			return err
		}
	}
	return nil
}

func TestRegistryIsKept(t *testing.T) {
	now := time.Now()
	all := fullRegistry(now).encodeAll(now)
	r, leftOut, err := Read(&memory{all}, testBounds(), now)
	if err != nil || len(leftOut) > 0 {
		t.Fatal(err, leftOut)
	}
	if again := r.encodeAll(now); len(all) != 5 || !reflect.DeepEqual(again, all) || !r.Same(fullRegistry(now)) {
		t.Errorf("%s\nread and written again:\n%s", all, again)
	}
}

// What a draft touches is what differs on disk: the records of a store to which only
// those are written are the records of the whole.
func TestWhatIsTouchedIsWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Now()
		s, disk := fullRegistry(now), map[[2]string]string{}
		for _, c := range s.encodeAll(now) {
			disk[[2]string{c.Bucket, c.Key}] = string(c.Value)
		}
		for range rapid.IntRange(1, 20).Draw(rt, "drafts") {
			d := s.draft()
			for range rapid.IntRange(1, 4).Draw(rt, "edits") {
				randomEdit(rt, d, now)
			}
			s = d.done()
			for what := range d.touched {
				c := s.encode(what, now)
				if disk[[2]string{c.Bucket, c.Key}] = string(c.Value); c.Value == nil {
					delete(disk, [2]string{c.Bucket, c.Key})
				}
			}
		}
		want := map[[2]string]string{}
		for _, c := range s.encodeAll(now) {
			want[[2]string{c.Bucket, c.Key}] = string(c.Value)
		}
		for k, v := range want {
			if disk[k] != v {
				rt.Errorf("%q is %s on disk, want %s", k, disk[k], v)
			}
		}
		for k := range disk {
			if _, ok := want[k]; !ok {
				rt.Errorf("%q is still on disk", k)
			}
		}
	})
}

// randomEdit changes a draft as the registry does.
func randomEdit(rt *rapid.T, d *draft, now time.Time) {
	network := rapid.SampledFrom([]string{"net", "other", "third"}).Draw(rt, "network")
	id := rapid.SampledFrom([]string{"t1", "t2", "t3"}).Draw(rt, "id")
	def := &networkDef{Subnet4: "10.99.0.0/16", Birth: rapid.Uint64Range(1, 3).Draw(rt, "birth")}
	switch rapid.IntRange(0, 7).Draw(rt, "edit") {
	case 0, 1:
		e := state.Endpoint{ID: id, Service: "web", IP4: netip.MustParseAddr("10.1.0.8"), Weight: 1}
		d.setTask(network, id, &savedTask{Service: "web", Body: state.AppendEndpoint(nil, &e)})
	case 2:
		if d.networks[network] != nil {
			d.removeTask(network, id, now.Add(time.Hour))
		}
	case 3:
		d.setDef(network, def)
	case 4:
		d.setCarried(network, def)
	case 5:
		d.dropNetwork(network)
	case 6:
		d.remember(removedNetwork{name: network, birth: 1, def: *def, until: now.Add(time.Hour)}, 2)
	case 7:
		d.setServices(network, map[string]*savedClaim{id: {vip: []byte(id)}})
	}
}

// Tasks that a lowered limit does not allow are no damage of the file, which
// would be moved away with all that is registered.
func TestTooManyTasksAreNoDamage(t *testing.T) {
	now := time.Now()
	lim := testBounds()
	lim.Tasks = 0
	_, _, err := Read(&memory{fullRegistry(now).encodeAll(now)}, lim, now)
	_, ok := errors.AsType[*TooManyError](err)
	if !ok || !strings.Contains(err.Error(), "max-tasks: 1 tasks are registered") {
		t.Error(err)
	}
}

// A host whose clock was wrong when it saved, or is wrong now, frees no VIP and
// forgets no removal: then no time passed. A right one counts what passed.
func TestClocks(t *testing.T) {
	right := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for _, tt := range []struct {
		name       string
		saved, now time.Time
		passed     time.Duration
	}{
		{"right", right, right.Add(3 * time.Hour), 3 * time.Hour},
		{"starts in 1970", right, time.Unix(30, 0), 0},
		{"starts a year ahead", right, right.AddDate(1, 0, 0), 0},
		{"saved in 1970", time.Unix(30, 0), right, 0},
		{"saved a year ahead", right.AddDate(1, 0, 0), right, 0},
		{"an hour back", right, right.Add(-time.Hour), 0},
		{"away for longer than the reservation", right, right.Add(50 * time.Hour), 50 * time.Hour},
	} {
		r, _, err := Read(&memory{fullRegistry(tt.saved).encodeAll(tt.saved)}, testBounds(), tt.now)
		if err != nil {
			t.Fatal(err)
		}
		reserved := r.networks["net"].services.at("old").until.Sub(tt.now)
		if want := max(20*time.Hour-tt.passed, 0); reserved != want {
			t.Errorf("%s: the reservation lasts %v, want %v", tt.name, reserved, want)
		}
		stated := r.removed[0].until.Sub(tt.now)
		if want := max(40*time.Hour-tt.passed, 0); stated != want {
			t.Errorf("%s: the removal is stated for %v, want %v", tt.name, stated, want)
		}
	}
}

// Files of versions before hold points in time.
func TestClocksOfEarlierFiles(t *testing.T) {
	right := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	claim := base64.StdEncoding.EncodeToString(state.AppendVIPClaim(nil,
		state.VIPClaim{Service: "old", VIP4: netip.MustParseAddr("10.96.1.2"), Birth: 7}))
	text := fmt.Sprintf(`{"networks":{"net":{"services":{"old":{"vip":%q,"until":"2026-05-04T13:02:01Z"}}}},
		"removed":[{"name":"gone","birth":5,"lamport":6,"at":"2026-05-03T03:02:01Z","Def":{"subnet":"10.98.0.0/16","birth":5}}]}`, claim)
	for _, tt := range []struct {
		name             string
		now              time.Time
		reserved, stated time.Duration
	}{
		{"right", right, 10 * time.Hour, 24 * time.Hour},
		{"in 1970", time.Unix(30, 0), 24 * time.Hour, 48 * time.Hour},
		{"a year ahead", right.AddDate(1, 0, 0), 24 * time.Hour, 48 * time.Hour},
	} {
		var f file
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			t.Fatal(err)
		}
		r, err := f.snapshot(testBounds(), tt.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.networks["net"].services.at("old").until.Sub(tt.now); got != tt.reserved {
			t.Errorf("%s: the reservation lasts %v, want %v", tt.name, got, tt.reserved)
		}
		if got := r.removed[0].until.Sub(tt.now); got != tt.stated {
			t.Errorf("%s: the removal is stated for %v, want %v", tt.name, got, tt.stated)
		}
	}
}

// A task that a newer version registered is drained by this one: what it does not
// know of the record is still stated, and written down.
func TestDrainingKeepsUnknownFields(t *testing.T) {
	e := state.Endpoint{IP4: netip.MustParseAddr("10.1.0.7"), Weight: 1}
	newer := "\xc8\x05newer" // tag 200, five bytes
	task := savedTask{Service: "web", Body: append(state.AppendEndpoint(nil, &e), newer...)}
	drained, got, err := task.draining("t1")
	if err != nil || !got.Draining || !strings.Contains(drained.change("t1").Body, newer) {
		t.Errorf("%q is stated: %+v %v", drained.Body, got, err)
	}
}
