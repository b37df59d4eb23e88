package state

import (
	"testing"
	"time"
)

// TestBoots covers the one form of boot ids (S17).
func TestBoots(t *testing.T) {
	for _, boot := range []uint64{0, 1, NewBoot(time.Hour, 1<<40+7), 1<<64 - 1} {
		if got, err := ParseBoot(FormatBoot(boot)); err != nil || got != boot {
			t.Errorf("%x is read as %x, %v", boot, got, err)
		}
	}
	for _, bad := range []string{
		"", "1", "000000000000000G", "00000000000000001", "+000000000000001",
		"000000000000000A",
	} {
		if got, err := ParseBoot(bad); err == nil {
			t.Errorf("%q is read as %x", bad, got)
		}
	}
	if NewBoot(time.Hour, 9) >= NewBoot(time.Hour+time.Millisecond, 0) {
		t.Error("who started later has the lower id")
	}
}
