package mesh_test

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"testing"

	"meshd/mesh/config"
)

// docs/OPERATIONS.md tells of every metric by its full name, and of none that
// there is not.
func TestMetricsAreDocumented(t *testing.T) {
	n := start(t, config.Config{Node: "a", DNS: []string{"127.0.0.1:0"}, LogDropped: func() uint64 { return 0 }})
	n.network("net", "10.96.0.0/16")
	var out bytes.Buffer
	n.must(n.Metrics(t.Context(), &out))
	doc, err := os.ReadFile("../docs/OPERATIONS.md")
	n.must(err)
	var here, there []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (meshd_[a-z_]+)`).FindAllStringSubmatch(out.String(), -1) {
		here = append(here, m[1])
	}
	for _, m := range regexp.MustCompile("`(meshd_[a-z_]+)[`{]").FindAllStringSubmatch(string(doc), -1) {
		there = append(there, m[1])
	}
	for _, name := range here {
		if !slices.Contains(there, name) {
			t.Errorf("docs/OPERATIONS.md does not tell of %s", name)
		}
	}
	// a table of nftables; what is there once there is something to tell
	late := regexp.MustCompile("^meshd_(nat|lb_drift_total|lb_verify_last_.*|dns_upstream_.*|" +
		"dns_query_duration_seconds|dns_queries_total)$")
	for _, name := range there {
		if !slices.Contains(here, name) && !late.MatchString(name) {
			t.Errorf("docs/OPERATIONS.md tells of %s, which is not there", name)
		}
	}
	if rule := regexp.MustCompile(`\([A-Z]{1,2}[0-9]+\)`).FindString(string(doc) + out.String()); rule != "" {
		t.Errorf("operators are told of the rule %s", rule)
	}
}
