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

	"meshd/mesh/config"
	"meshd/mesh/internal/keys"
	"meshd/mesh/internal/registry"
	"meshd/mesh/internal/store"
	"meshd/state"
)

// body encodes a task as tasks.json has it.
func body(e state.Endpoint) string {
	e.Service, e.Weight = "web", 1
	return base64.StdEncoding.EncodeToString(state.AppendEndpoint(nil, &e))
}

// Tasks that a lowered limit does not allow are an error of the configuration, and
// no damage of the file.
func TestLoweredLimitIsAnErrorOfTheConfiguration(t *testing.T) {
	d := store.Unlocked(t.TempDir())
	text := fmt.Sprintf(`{"networks":{"net":{"tasks":{"t1":{"service":"web","body":%q}}}}}`,
		body(state.Endpoint{ID: "t1", IP4: netip.MustParseAddr("10.1.0.7")}))
	if err := os.WriteFile(d.File(fileTasks), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	lim := registry.DefaultBounds()
	lim.Tasks = 0
	_, err := readRegistry(d, lim, time.Now())
	if !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), "max-tasks: 1 tasks are registered") ||
		strings.Contains(err.Error(), "corrupted") {
		t.Error(err)
	}
}

// Every byte of the files passes the constructors of the API: what meshd cannot
// have written is an error that names the file and what to do, and the file
// stays as it was. What other nodes said is left out instead.
func TestHostileFiles(t *testing.T) {
	good := body(state.Endpoint{ID: "t1", IP4: netip.MustParseAddr("10.1.0.7")})
	task := func(service, id, body string) string {
		return fmt.Sprintf(`{"networks":{"net":{"tasks":{%q:{"service":%q,"body":%q}}}}}`, id, service, body)
	}
	many := map[string]any{}
	for i := range registry.DefaultBounds().Networks + 1 {
		many[fmt.Sprintf("n%d", i)] = map[string]any{}
	}
	tooMany, _ := json.Marshal(map[string]any{"networks": many})
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
		{fileSandboxes, "good", `{"sandboxes":[]}`, ""},
		{fileSandboxes, "no network", `{"sandboxes":[{"id":"a","name":"a","netns":"/run/netns/a","addresses":["10.1.0.7"]}]}`, "corrupted"},
		{fileSandboxes, "no address", `{"sandboxes":[{"id":"a","name":"a","netns":"/run/netns/a","networks":["net"]}]}`, "corrupted"},
		{keys.FileName, "good", `{"from":"","keys":[]}`, ""},
		// no key file: not looked at
		{keys.FileName, "a short key", `{"from":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","keys":["AAAA"]}`, ""},
		{keys.FileName, "garbage", `{"keys":"x"}`, "corrupted"},
	} {
		d := store.Unlocked(t.TempDir())
		if err := os.WriteFile(d.File(tt.file), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := readAll(d)
		after, _ := os.ReadFile(d.File(tt.file))
		switch {
		case string(after) != tt.text:
			t.Errorf("%s %s: the file was changed", tt.file, tt.name)
		case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s %s: got %v, want %q", tt.file, tt.name, err, tt.want)
		case tt.want == "corrupted" && (!strings.Contains(err.Error(), d.File(tt.file)) ||
			!strings.Contains(err.Error(), "move it away")):
			t.Errorf("%s %s: neither the file nor what to do: %v", tt.file, tt.name, err)
		}
	}
}

// readAll reads everything as a start does; what is left out is an error here.
func readAll(d *store.Dir) error {
	saved, err := readRegistry(d, registry.DefaultBounds(), time.Now())
	if err != nil {
		return err
	}
	if len(saved.leftOut) > 0 {
		return fmt.Errorf("left out: %s", saved.leftOut[0])
	}
	if _, err := readSandboxes(d); err != nil {
		return err
	}
	if _, err := nextIdentity(d, "a"); err != nil {
		return err
	}
	_, err = keys.Open(d, nil)
	return err
}
