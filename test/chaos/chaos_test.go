//go:build linux

package chaos

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"meshd/test/fleet"
	"meshd/test/rig"
)

var (
	seconds = flag.Int("seconds", 30, "begin no new round after so many `SECONDS`")
	seed    = flag.Uint64("seed", 1, "of the schedule")
	hosts   = flag.Int("hosts", 5, "how many hosts")
	only    = flag.String("only", "", "draw from these `KINDS` of faults, separated by commas")
	bound   = flag.Duration("bound", 20*time.Second, "for all to be right after a round is healed")
)

func TestMain(m *testing.M) {
	fleet.ServeIfAsked()
	os.Exit(rig.TestMain(fleet.Build, m.Run))
}

// TestChaosReal is the run of "make chaos-real"; without flags it is short.
func TestChaosReal(t *testing.T) {
	f := fleet.NewTest(t, 0)
	var kinds []string
	if *only != "" {
		kinds = strings.Split(*only, ",")
	}
	r, err := Run(t.Context(), f, Options{
		Only: kinds, Seed: *seed, For: time.Duration(*seconds) * time.Second, Hosts: *hosts, Bound: *bound, Log: t.Logf,
	})
	t.Logf("failures of clients, explained:\n%s", r.Explained())
	t.Log(r)
	if err != nil {
		t.Errorf("seed %d: %v", *seed, err)
	}
}
