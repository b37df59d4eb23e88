//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
	"meshd/test/hostkind"
	"meshd/test/rig"
)

// onKind makes a fleet whose first host is of a kind, and has a meshd with the flags,
// and whose second one is prepared.
func onKind(t *testing.T, name string, flags ...string) (sick, well *fleet.Node) {
	t.Helper()
	kind, err := hostkind.Named(name)
	must(t, err)
	f := fleet.NewTest(t, 0)
	h, err := kind.AddHost(f.Rig, "host1")
	if errors.Is(err, hostkind.ErrMissing) {
		t.Skip(err)
	}
	must(t, err)
	other, err := f.Rig.AddHost("host2")
	must(t, err)
	sick, well = f.AddNode(h, flags), f.AddNode(other, nil, h)
	must(t, sick.Start(t.Context()))
	must(t, well.Start(t.Context()))
	return sick, well
}

// TestContainerCallsItself has a container behind a bridge that hands packets to the
// filters, and does not send them back where they came from, call the service that it
// is a task of 10,000 times: each is answered, and nothing is sent twice. Before meshd
// put the port into hairpin mode, a third of the calls lost a second or more.
func TestContainerCallsItself(t *testing.T) {
	t.Parallel()
	calls := 10000
	if os.Getenv(rig.SlowEnv) != "" {
		calls = 1000 // an emulated machine
	}
	sick, well := onKind(t, "bridged")
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error { return well.Members(ctx, 2) })
	ctl(t, sick, "network", "create", network, "--subnet", "10.96.0.0/16")
	tasks := run(t, "web", sick, sick, well)
	from := tasks[0]
	vip := answersAt(t, from, "web", "10.96.0.0/16")
	warns(t, sick, "port task1", "port task2")
	met := map[string]int{}
	fleet.Within(t, 20*time.Second, func(ctx context.Context) error { // all are known
		id, err := from.Get(ctx, vip)
		if met[id]++; err == nil && len(met) < len(tasks) {
			err = fmt.Errorf("met %v", met)
		}
		return err
	})
	// On a busy machine an answer may come so late that it is asked for again: what is
	// lost is so each time.
	const tries = 3
	for i := range tries {
		clear(met)
		before, begin := resent(t, from), time.Now()
		must(t, from.Do(func() error { return callMany(vip, calls, met) }))
		again := resent(t, from) - before
		t.Logf("%d calls in %v, by %v; %d segments were sent twice", calls, time.Since(begin), met, again)
		for _, task := range tasks {
			if n := met[task.ID]; n < calls/4 {
				t.Errorf("%s answered %d of %d calls", task.ID, n, calls)
			}
		}
		if again == 0 {
			return
		}
		if i == tries-1 {
			t.Errorf("%d segments were sent twice, the %d. time", again, tries)
		}
	}
}

// callMany makes that many connections, one after the other, with a request on each,
// and counts who answered.
func callMany(vip netip.Addr, calls int, met map[string]int) error {
	for i := range calls {
		id, err := callOnce(vip)
		if err != nil {
			return fmt.Errorf("call %d: %w", i+1, err)
		}
		met[id]++
	}
	return nil
}

func callOnce(vip netip.Addr) (string, error) {
	c, err := net.DialTimeout("tcp", netip.AddrPortFrom(vip, fleet.TaskPort).String(), rig.Patience(10*time.Second))
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(rig.Patience(10 * time.Second)))
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(c)
	_, body, _ := strings.Cut(string(text), "\r\n\r\n")
	return strings.TrimSpace(body), err
}

// resent returns how many TCP segments a task has sent again so far.
func resent(t *testing.T, from *fleet.Task) int {
	t.Helper()
	var text []byte
	must(t, from.Do(func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/snmp"); return err }))
	var names []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "Tcp:" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i, name := range names {
			if name == "RetransSegs" {
				n, err := strconv.Atoi(f[i])
				must(t, err)
				return n
			}
		}
	}
	t.Fatal("/proc/net/snmp tells no RetransSegs")
	return 0
}

// TestDoctorOnKinds starts meshd on hosts with the firewalls of distributions, as
// their programs make them: the doctor names what they drop, and its own advice cures
// it. With firewall: accept, VIPs need none.
func TestDoctorOnKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind  string
		codes []string
	}{
		{"docker", []string{"firewall-forward"}},
		{"beside-docker", []string{"firewall-forward"}},
		{"ufw", []string{"firewall-forward", "firewall-input"}},
		{"firewalld", []string{"firewall-forward", "firewall-input"}},
		{"dropping", nil},
		{"strict", nil},
		{"debian", nil},
	} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			sick, well := onKind(t, c.kind)
			ctl(t, sick, "network", "create", network, "--subnet", "10.96.0.0/16")
			task := run(t, "web", sick)[0]
			var d control.Doctor
			fleet.Within(t, 20*time.Second, func(context.Context) (err error) {
				if d, err = diagnosis(sick); err == nil {
					err = namesAll(d, c.codes)
				}
				return err
			})
			(&crippled{}).cure(t, sick, d)
			fleet.Within(t, 20*time.Second, func(ctx context.Context) error { return well.Members(ctx, 2) })
			run(t, "api", well)
			fleet.Within(t, 20*time.Second, func(context.Context) error {
				d, err := diagnosis(sick)
				if err == nil && len(d.Findings) > 0 {
					(&crippled{}).cure(t, sick, d) // of what it did not know before
					err = fmt.Errorf("after its own advice doctor finds %+v", d.Findings)
				}
				return err
			})
			(&crippled{}).reaches(t, task, true)
		})
	}
}

// namesAll wants findings of exactly these codes.
func namesAll(d control.Doctor, codes []string) error {
	left := map[string]bool{}
	for _, code := range codes {
		left[code] = true
	}
	for _, f := range d.Findings {
		if _, ok := left[f.Code]; !ok && f.Code != "alone" {
			return fmt.Errorf("%s is found, which is not wanted: %s", f.Code, f.What)
		}
		delete(left, f.Code)
	}
	if len(left) > 0 {
		return fmt.Errorf("%v are not found, but %+v", left, d.Findings)
	}
	return nil
}
