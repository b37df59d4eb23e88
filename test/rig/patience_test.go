package rig_test

import (
	"testing"
	"time"

	"meshd/test/rig"
)

func TestPatience(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": time.Second, "1": time.Second, "2.5": 2500 * time.Millisecond, "100": 100 * time.Second,
		"0": time.Second, "-3": time.Second, "101": time.Second, "NaN": time.Second, "slow": time.Second,
	} {
		t.Setenv(rig.SlowEnv, value)
		if got := rig.Patience(time.Second); got != want {
			t.Errorf("%s=%s: a second became %v, want %v", rig.SlowEnv, value, got, want)
		}
	}
}
