package mesh

import (
	"os"
	"strings"
	"testing"

	"meshd/mesh/internal/store"
)

// TestPoisonedIdentity: a data directory whose counters no node reaches is
// refused as it is, with the way out.
func TestPoisonedIdentity(t *testing.T) {
	for _, text := range []string{
		`{"node":"a","incarnation":4611686018427387904,"lamport":1}`,
		`{"node":"a","incarnation":18446744073709551615,"lamport":1}`,
		`{"node":"a","incarnation":3,"lamport":4611686018427387904}`,
	} {
		d := store.Unlocked(t.TempDir())
		file := d.File("node.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := nextIdentity(d, "a")
		if err == nil || !strings.Contains(err.Error(), "node.json") {
			t.Errorf("%s: %v", text, err)
		}
		if b, _ := os.ReadFile(file); string(b) != text {
			t.Errorf("%s was changed to %s", text, b)
		}
	}
}
