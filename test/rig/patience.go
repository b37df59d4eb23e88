package rig

import (
	"os"
	"strconv"
	"time"
)

// SlowEnv says how many times slower than usual a machine is, from 1 to 100;
// an emulated one is. What waits for things to happen waits that much longer.
const SlowEnv = "MESHD_SLOW"

// Patience is how long to wait on this machine for what takes at most usual on
// others. It is for conditions that are awaited, not for those that must hold.
func Patience(usual time.Duration) time.Duration {
	factor, err := strconv.ParseFloat(os.Getenv(SlowEnv), 64)
	if err != nil || !(factor >= 1 && factor <= 100) { // NaN is neither
		return usual
	}
	return time.Duration(float64(usual) * factor)
}
