//go:build linux

package hostile

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"meshd/test/fleet"
	"meshd/test/rig"
)

var (
	every = flag.Bool("every", false, "run all cases, not only some that take no time")
	only  = flag.String("only", "", "run the `CASES` whose names contain one of these, separated by commas")
)

// some are what runs without a flag.
const some = "count-,frames-in,wants-in,pool-of-everything,task-at-loopback,bomb-in-a-datagram,open-counts," +
	"questions-in-a-loop,bodies-that,container-mounts"

func TestMain(m *testing.M) {
	flag.Parse()
	fleet.ServeIfAsked()
	os.Exit(rig.TestMain(fleet.Build, withOwnEtc(m.Run)))
}

// attack is one case.
type attack struct {
	name string
	do   func(m *mesh) error // what is done; an error ends the case
	// check is what must hold besides what always must, as soon as possible;
	// nil: nothing.
	check    func(m *mesh) error
	degraded string // status says so on at least one node; empty: no node is degraded
	// leave ends what the case left on purpose; afterwards no node is degraded.
	// nil: there is nothing.
	leave func(m *mesh) error
}

// all are the cases, in order.
func all() []attack {
	var out []attack
	for _, group := range [][]attack{
		packetCases(), recordCases(), membershipCases(), neighbourCases(), openCases(),
		stormCases(), nameCases(), controlCases(), personCases(), trialCases(), boxCases(), diskCases(), hostCases(),
	} {
		out = append(out, group...)
	}
	return out
}

// TestHostile runs the cases on one mesh, and on a new one after a case that
// failed.
func TestHostile(t *testing.T) {
	todo := chosen(all())
	passed, failed := 0, 0
	began := time.Now()
	for i := 0; i < len(todo); {
		t.Run(fmt.Sprintf("from-%s", todo[i].name), func(t *testing.T) {
			m := newMesh(t)
			for fine := true; fine && i < len(todo); i++ {
				c := todo[i]
				start := time.Now()
				what := m.run(&c)
				result := "pass"
				if what != "" {
					result = "fail"
					failed++
					t.Errorf("%s: %s", c.name, what)
				} else {
					passed++
				}
				fmt.Printf("hostile case=%s result=%s ms=%d what=%q\n", c.name, result, time.Since(start).Milliseconds(), what)
				fine = what == ""
			}
		})
	}
	fmt.Printf("hostile passed=%d failed=%d seconds=%d\n", passed, failed, int(time.Since(began).Seconds()))
}

func chosen(cases []attack) []attack {
	if *every && *only == "" {
		return cases
	}
	var out []attack
	for _, c := range cases {
		for part := range strings.SplitSeq(cmp.Or(*only, some), ",") {
			if strings.Contains(c.name, part) {
				out = append(out, c)
				break
			}
		}
	}
	return out
}
