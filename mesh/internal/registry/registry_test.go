package registry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meshd/state"
)

// testBounds are those of a node without settings.
func testBounds() Bounds { return DefaultBounds() }

// fullRegistry returns a registry with everything in it.
func fullRegistry(now time.Time) *Snapshot {
	d := (&Snapshot{networks: map[string]*localNetwork{}}).draft()
	e := state.Endpoint{ID: "t1", Service: "web", IP4: netip.MustParseAddr("10.1.0.7"), Weight: 1}
	d.setTask("net", "t1", savedTask{Service: "web", Body: state.AppendEndpoint(nil, &e)})
	claim := state.VIPClaim{Service: "old", VIP4: netip.MustParseAddr("10.96.1.2"), Birth: 7}
	d.setServices("net", map[string]savedClaim{"old": {
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

// memory is a Store of one file.
type memory struct{ text []byte }

func (m *memory) Save(b []byte) error { m.text = b; return nil }
func (m *memory) Load(v any) error    { return json.Unmarshal(m.text, v) }

func TestRegistryIsKept(t *testing.T) {
	now := time.Now()
	b, err := fullRegistry(now).encode(now)
	if err != nil {
		t.Fatal(err)
	}
	r, leftOut, err := Read(&memory{b}, testBounds(), now)
	if err != nil || len(leftOut) > 0 {
		t.Fatal(err, leftOut)
	}
	again, err := r.encode(now)
	if err != nil || string(again) != string(b) {
		t.Errorf("%v\n%s\nread and written again:\n%s", err, b, again)
	}
}

// Tasks that a lowered limit does not allow are no damage of the file, which
// would be moved away with all that is registered.
func TestTooManyTasksAreNoDamage(t *testing.T) {
	now := time.Now()
	b, err := fullRegistry(now).encode(now)
	if err != nil {
		t.Fatal(err)
	}
	lim := testBounds()
	lim.Tasks = 0
	_, _, err = Read(&memory{b}, lim, now)
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
		b, err := fullRegistry(tt.saved).encode(tt.saved)
		if err != nil {
			t.Fatal(err)
		}
		var f file
		if err := json.Unmarshal(b, &f); err != nil {
			t.Fatal(err)
		}
		r, err := f.snapshot(testBounds(), tt.now)
		if err != nil {
			t.Fatal(err)
		}
		reserved := r.networks["net"].services["old"].until.Sub(tt.now)
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
		if got := r.networks["net"].services["old"].until.Sub(tt.now); got != tt.reserved {
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
