package metrics

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"meshd/gossip"
	"meshd/lb"
	"meshd/lb/hostcheck"
	"meshd/lb/hostwatch"
	"meshd/lb/rulewatch"
	"meshd/mesh/internal/lookout"
	"meshd/resolver"
)

// collected returns the text of what collect sends.
func collected(t *testing.T, collect func(e Emitter)) string {
	t.Helper()
	r := New(func(_ context.Context, e Emitter) { collect(e) })
	r.Propagation(3 * time.Millisecond)
	r.Propagation(-time.Second)
	var out bytes.Buffer
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// wantLines looks for lines of a text.
func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(text, "\n"+l+"\n") {
			t.Errorf("no line %q", l)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Each kind of value has its form.
func TestEmitter(t *testing.T) {
	text := collected(t, func(e Emitter) {
		e.Gauge("meshd_a", "A.", 1.5, "of", "x")
		e.Flag("meshd_b", "B.", true)
		e.Counter("meshd_c_total", "C.", 1<<40, "one", "1", "two", "2")
		e.Seconds("meshd_d_seconds_total", "D.", 1500*time.Millisecond)
		e.Histogram("meshd_e_seconds", "E.", 7*time.Second, []float64{.1, 1}, []uint64{4, 2, 1}, "l", "v")
	})
	wantLines(t, text,
		`meshd_a{of="x"} 1.5`, `meshd_b 1`, `# TYPE meshd_c_total counter`,
		`meshd_c_total{one="1",two="2"} 1.099511627776e+12`,
		`meshd_d_seconds_total 1.5`,
		`meshd_e_seconds_bucket{l="v",le="0.1"} 4`, `meshd_e_seconds_bucket{l="v",le="1"} 6`,
		`meshd_e_seconds_bucket{l="v",le="+Inf"} 7`, `meshd_e_seconds_sum{l="v"} 7`,
		`meshd_propagation_seconds_count 2`, `meshd_propagation_seconds_bucket{le="0.0005"} 1`)
}

// The parts' counters become metrics, also where there is nothing to count.
func TestParts(t *testing.T) {
	text := collected(t, func(e Emitter) {
		c := lb.Counters{Driver: "nft", Ready: true, Services: 3}
		c.ApplyBuckets[0] = 2
		e.Balancer("", &c, &lb.Report{At: time.Unix(100, 0)})
		e.Balancer("box", &lb.Counters{}, nil)
		e.Namespace("", hostwatch.Counters{Reads: 4})
		e.Rules("", rulewatch.Counters{Heard: 5}, nil)
		e.Lookout([]hostcheck.Finding{{Code: hostcheck.Hairpin}}, lookout.Counts{Looks: 6, Spent: time.Second})
		e.Host(gossip.HostStats{In: 7})
		buckets := make([]uint64, len(resolver.LatencyBuckets))
		buckets[0] = 1
		tries := []resolver.UpstreamCount{{Result: "ok", Count: 3, Buckets: buckets}}
		e.DNS(&resolver.Stats{Tries: tries, CacheEntries: 8}, nil)
	})
	wantLines(t, text,
		`meshd_lb_info{driver="nft",sandbox=""} 1`, `meshd_lb_services{sandbox=""} 3`,
		`meshd_lb_apply_seconds_count{sandbox=""} 2`,
		`meshd_lb_verify_last_timestamp_seconds{sandbox=""} 100`, `meshd_lb_info{driver="none",sandbox="box"} 1`,
		`meshd_host_reads_total{sandbox=""} 4`, `meshd_rules_heard{sandbox=""} 1`, `meshd_rules_events_total{sandbox=""} 5`,
		`meshd_host_looks_total 6`, `meshd_host_findings{code="`+string(hostcheck.Hairpin)+`"} 1`,
		`meshd_transport_in_bytes_total 7`, `meshd_dns_cache_entries 8`,
		`meshd_dns_upstream_duration_seconds_count{result="ok"} 3`)
}
