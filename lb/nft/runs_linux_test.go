package nft

import (
	"testing"
	"time"

	"meshd/lb"
)

// L6: what is told of a service is what picks its backends.
func TestRunsAs(t *testing.T) {
	for scheduler, want := range map[string]string{
		"rr": "wrr", "wrr": "wrr", "lc": "wrr", "wlc": "wrr", "sed": "wrr", "nq": "wrr", "sh": "sh", "dh": "sh", "mh": "sh",
	} {
		if got := (&Driver{}).RunsAs(&lb.Service{Scheduler: scheduler}); got != want {
			t.Errorf("%s runs as %s, want %s", scheduler, got, want)
		}
	}
	if got := (&Driver{}).RunsAs(&lb.Service{Scheduler: "wrr", Affinity: time.Minute}); got != "sh" {
		t.Errorf("with affinity, wrr runs as %s, want sh", got)
	}
}
