package mesh_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"meshd/mesh/config"
	"meshd/mesh/control"
)

// docs/OPERATIONS.md lists the metrics of load balancing, and no others.
func TestLBMetricsAreDocumented(t *testing.T) {
	n := start(t, config.Config{Node: "a"})
	var out bytes.Buffer
	n.must(n.Metrics(t.Context(), &out))
	here := map[string]bool{"meshd_lb_drift_total": true} // absent until there is one
	series := 0
	for _, m := range regexp.MustCompile(`(?m)^(# TYPE )?(meshd_lb_[a-z_]+)`).FindAllStringSubmatch(out.String(), -1) {
		if m[1] != "" {
			here[m[2]] = true
		} else {
			series++
		}
	}
	eventuallyDocumented := map[string]bool{ // after the first comparison with a kernel
		"meshd_lb_verify_last_timestamp_seconds": true, "meshd_lb_verify_last_seconds": true,
		"meshd_lb_verify_last_ok": true, "meshd_lb_verify_last_differences": true,
	}
	maps.Copy(here, eventuallyDocumented)
	doc, err := os.ReadFile("../docs/OPERATIONS.md")
	n.must(err)
	there := map[string]bool{}
	for _, name := range regexp.MustCompile(`meshd_lb_[a-z_]+`).FindAllString(string(doc), -1) {
		there[name] = true
	}
	if !maps.Equal(here, there) {
		t.Errorf("docs/OPERATIONS.md has %v\nthe node %v", slices.Sorted(maps.Keys(there)), slices.Sorted(maps.Keys(here)))
	}
	if most := series + len(eventuallyDocumented) + 8*3; most > 76 { // areas times kinds of drift
		t.Errorf("%d series; the document says at most 76", most)
	}
}

// A node whose balancer is off says so wherever one asks.
func TestLBOff(t *testing.T) {
	n := start(t, config.Config{Node: "a"})
	table, err := n.LB(t.Context(), control.LBRequest{})
	n.must(err)
	if table.Driver != "none" || table.InSync || !strings.Contains(table.Why, "lb: none") {
		t.Errorf("lb ls: %+v", table)
	}
	reply, err := n.VerifyLB(t.Context(), control.LBVerifyRequest{})
	n.must(err)
	if reply.InSync || len(reply.Reports) != 1 || reply.Reports[0].Result != control.LBFailed ||
		reply.Reports[0].Error != "load balancing is off" {
		t.Errorf("lb verify: %+v", reply)
	}
	s, err := n.Status(t.Context())
	n.must(err)
	if len(s.LB) != 1 || s.LB[0].Driver != "none" || s.LB[0].InSync ||
		strings.Contains(fmt.Sprint(s.Degraded), "load balancer") {
		t.Errorf("status: %+v, degraded %v", s.LB, s.Degraded)
	}
}

func TestLBOfNobody(t *testing.T) {
	n := start(t, config.Config{Node: "a"})
	if _, err := n.LB(t.Context(), control.LBRequest{Sandbox: "nobody"}); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("lb ls: %v", err)
	}
	if _, err := n.VerifyLB(t.Context(), control.LBVerifyRequest{Sandbox: "nobody"}); !errors.Is(err,
		control.ErrNotFound) {
		t.Errorf("lb verify: %v", err)
	}
}

func TestLBVerifyPeriod(t *testing.T) {
	for _, c := range []struct {
		every config.Duration
		ok    bool
	}{{0, true}, {1e9, true}, {3600e9, true}, {1e8, false}, {3601e9, false}} {
		_, err := tryStart(t, config.Config{Node: "a", LBVerify: c.every})
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "lb-verify: ") {
			t.Errorf("%d: %v", c.every, err)
		}
	}
}

// A balancer that has stopped is not a defect of the daemon.
func TestLBOfAStoppedNode(t *testing.T) {
	n := start(t, config.Config{Node: "a"})
	n.stop()
	if _, err := n.VerifyLB(t.Context(), control.LBVerifyRequest{}); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("lb verify: %v", err)
	}
}
