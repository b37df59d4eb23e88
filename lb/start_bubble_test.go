package lb_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/lb"
	"meshd/lb/lbtest"
)

// A balancer whose namespace another process has leaves the kernel alone, says
// whose it is, and takes it over if that one ends soon: not later, when it would
// come between two lives of a daemon that is there to stay.
func TestNamespaceOfAnother(t *testing.T) {
	for _, c := range []struct {
		free  time.Duration // after the start
		works bool
	}{{0, true}, {3 * time.Second, true}, {time.Minute, false}} {
		synctest.Test(t, func(t *testing.T) {
			kernel, w := &lbtest.Fake{DriverName: "nft"}, newWorld(t, "net")
			var asked atomic.Int64
			began := time.Now()
			b := run(t, w, lb.Config{MayProgram: func() error {
				asked.Add(1)
				if time.Since(began) < c.free {
					return errors.New("process 7 has it")
				}
				return nil
			}}, kernel)
			after(time.Second)
			if c.free > time.Second {
				s, err := b.Status(t.Context())
				if err != nil || s.Driver != "" || b.Working("net") || len(s.Refused) != 1 ||
					!strings.Contains(s.Refused[0].Reason, "process 7") {
					t.Errorf("beside another process: %+v, %v", s, err)
				}
			}
			after(2 * time.Minute)
			if b.Working("net") != c.works {
				t.Errorf("free after %v: working is %v; asked %d times", c.free, !c.works, asked.Load())
			}
			if n := asked.Load(); n > 40 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}
