package mesh

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"meshd/state"
)

// testBounds are those of a node without settings.
func testBounds() bounds { return (&settled{}).bounds() }

// fullRegistry returns a registry with everything in it.
func fullRegistry(now time.Time) *registry {
	d := (&registry{networks: map[string]*localNetwork{}}).draft()
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

// writtenDown returns a data directory with a full registry, and its text.
func writtenDown(t *testing.T, now time.Time) (*dataDir, []byte) {
	t.Helper()
	d := newDataDir(t.TempDir())
	b, err := fullRegistry(now).encode(now)
	if err == nil {
		err = d.put(fileTasks, b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d, b
}

func TestRegistryIsKept(t *testing.T) {
	now := time.Now()
	d, b := writtenDown(t, now)
	r, leftOut, err := d.registry(testBounds(), now)
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
	d, _ := writtenDown(t, now)
	lim := testBounds()
	lim.tasks = 0
	_, _, err := d.registry(lim, now)
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "max-tasks: 1 tasks are registered") ||
		strings.Contains(err.Error(), "corrupted") {
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
		var f registryFile
		if err := json.Unmarshal(b, &f); err != nil {
			t.Fatal(err)
		}
		r, err := f.registry(testBounds(), tt.now)
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
		var f registryFile
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			t.Fatal(err)
		}
		r, err := f.registry(testBounds(), tt.now)
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

// body encodes a task as tasks.json has it.
func body(e state.Endpoint) string {
	e.Service, e.Weight = "web", 1
	return base64.StdEncoding.EncodeToString(state.AppendEndpoint(nil, &e))
}

// Every byte of the files passes the constructors of the API: what meshd cannot
// have written is an error that names the file and what to do, and the file
// stays as it was. What other nodes said is left out instead.
func TestHostileFiles(t *testing.T) {
	good := body(state.Endpoint{ID: "t1", IP4: netip.MustParseAddr("10.1.0.7")})
	task := func(service, id, body string) string {
		return fmt.Sprintf(`{"networks":{"net":{"tasks":{%q:{"service":%q,"body":%q}}}}}`, id, service, body)
	}
	many := map[string]*networkFile{}
	for i := range maxNetworks + 1 {
		many[fmt.Sprintf("n%d", i)] = &networkFile{}
	}
	tooMany, _ := json.Marshal(registryFile{Networks: many})
	claims := func(c state.VIPClaim) string {
		c.Service, c.VIP4 = "web", netip.MustParseAddr("10.96.0.9")
		return fmt.Sprintf(`{"networks":{"net":{"services":{"web":{"vip":%q}}}}}`,
			base64.StdEncoding.EncodeToString(state.AppendVIPClaim(nil, c)))
	}
	for _, tt := range []struct{ file, name, text, want string }{
		{fileTasks, "good", task("web", "t1", good), ""},
		{fileTasks, "empty", ``, "corrupted"},
		{fileTasks, "half", `{"networks":{"net":{`, "corrupted"},
		{fileTasks, "two", `{"networks":{}}{"networks":{}}`, "corrupted"},
		{fileTasks, "a list", `[]`, "corrupted"},
		{fileTasks, "no network", `{"networks":{"net":null}}`, "empty"},
		{fileTasks, "a network's name", `{"networks":{"a b":{}}}`, "corrupted"},
		{fileTasks, "too many networks", string(tooMany), "at most 1024"},
		{fileTasks, "garbage for a task", task("web", "t1", "AAAA"), "corrupted"},
		{fileTasks, "a task without address", task("web", "t1", body(state.Endpoint{})), "corrupted"},
		{fileTasks, "an id", task("web", "a/b", good), "corrupted"},
		{fileTasks, "a service", task("a b", "t1", good), "corrupted"},
		{fileTasks, "garbage for a claim", `{"networks":{"net":{"services":{"web":{"vip":"AAAA"}}}}}`, "left out: the claims"},
		{fileTasks, "a claim of the end of time", claims(state.VIPClaim{Birth: 1 << 62}), "left out: the claims of service"},
		{fileTasks, "a pool", `{"networks":{"net":{"def":{"subnet":"127.0.0.0/8","birth":1}}}}`, "corrupted"},
		{fileTasks, "a pool of a peer", `{"networks":{"net":{"carried":{"subnet":"0.0.0.0/0","birth":1}}}}`, "left out: the definition of network"},
		{fileTasks, "a birth", `{"networks":{"net":{"def":{"subnet":"10.96.0.0/16","birth":4611686018427387904}}}}`, "corrupted"},
		{fileTasks, "a birth of a peer", `{"networks":{"net":{"carried":{"subnet":"10.96.0.0/16","birth":4611686018427387904}}}}`, "left out: the definition"},
		{fileTasks, "a removal", `{"removed":[{"name":"net","birth":18446744073709551615,"Def":{"subnet":"10.96.0.0/16"}}]}`, "left out: the removal"},
		{fileTasks, "a number that is none", `{"networks":{"net":{"def":{"subnet":"10.96.0.0/16","birth":1e400}}}}`, "corrupted"},
		{fileNode, "good", `{"node":"a","incarnation":4,"lamport":9}`, ""},
		{fileNode, "an incarnation", `{"node":"a","incarnation":4611686018427387904}`, "corrupted"},
		{fileNode, "the last incarnation", `{"node":"a","incarnation":18446744073709551615}`, "corrupted"},
		{fileNode, "a Lamport time", `{"node":"a","lamport":4611686018427387904}`, "corrupted"},
		{fileNode, "less than nothing", `{"node":"a","incarnation":-1}`, "corrupted"},
		{fileNode, "another's", `{"node":"zoe"}`, "remove the directory if nothing in it is needed"},
		{fileKeys, "good", `{"from":"","keys":[]}`, ""},
		// no key file: not looked at
		{fileKeys, "a short key", `{"from":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","keys":["AAAA"]}`, ""},
		{fileKeys, "garbage", `{"keys":"x"}`, "corrupted"},
	} {
		d := newDataDir(t.TempDir())
		if err := os.WriteFile(d.file(tt.file), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := d.readAll()
		after, _ := os.ReadFile(d.file(tt.file))
		switch {
		case string(after) != tt.text:
			t.Errorf("%s %s: the file was changed", tt.file, tt.name)
		case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s %s: got %v, want %q", tt.file, tt.name, err, tt.want)
		case tt.want == "corrupted" && (!strings.Contains(err.Error(), d.file(tt.file)) ||
			!strings.Contains(err.Error(), "move it away")):
			t.Errorf("%s %s: neither the file nor what to do: %v", tt.file, tt.name, err)
		}
	}
}

// readAll reads everything as a start does; what is left out is an error here.
func (d *dataDir) readAll() error {
	_, leftOut, err := d.registry(testBounds(), time.Now())
	if err != nil {
		return err
	}
	if len(leftOut) > 0 {
		return fmt.Errorf("left out: %s", leftOut[0])
	}
	if _, err := d.next("a"); err != nil {
		return err
	}
	_, err = openKeystore(d, nil)
	return err
}
