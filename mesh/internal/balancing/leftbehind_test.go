package balancing

import (
	"testing"

	"meshd/mesh/internal/hostchanges"
)

// Only a data directory whose node has programmed the host, since it booted,
// has lb: none end what is there; that is remembered until it is gone.
func TestLeftBehind(t *testing.T) {
	var saved hostchanges.Saved
	save := func(s hostchanges.Saved) error { saved = s; return nil }
	life := func(choice string) *Host {
		return &Host{cfg: Config{Choice: choice}, changes: hostchanges.New(saved, save)}
	}
	end := func(n *Host) {
		t.Helper()
		if err := n.changes.Write(); err != nil {
			t.Fatal(err)
		}
	}
	n := life("none")
	if got := n.leftBehind(); got != "auto" {
		t.Errorf("a fresh data directory: %s, want auto, which looks for nothing", got)
	}
	end(n)
	if saved.Boot != "" {
		t.Errorf("nothing is worth a record, and %+v was written", saved)
	}
	n = life("ipvs")
	n.changes.SetDriver("ipvs")
	end(n)
	if n = life("none"); n.leftBehind() != "none" {
		t.Error("what ipvs left is not looked for")
	}
	n.changes.SetDriver("")
	end(n)
	if got := life("none").leftBehind(); got != "auto" {
		t.Errorf("after the end: %s", got)
	}
	saved.Driver, saved.Boot = "ipvs", "another"
	if got := life("none").leftBehind(); got != "auto" {
		t.Errorf("after another boot: %s", got)
	}
}
