package sysctl

import (
	"os"
	"slices"
	"strings"
	"testing"

	"meshd/lb/internal/namespace"
	"meshd/test/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.TestMain(nil, m.Run)) }

var forward4 = Setting{Key: ForwardIPv4, Value: "1"}

// TestPutBack: what is changed is told, and put back in the opposite
// order where nobody else changed it; a name with dots is one name.
func TestPutBack(t *testing.T) {
	path := rig.NewTest(t, 1).Hosts()[0].Path()
	err := namespace.Inside(path, func() error {
		for _, s := range [][2]string{
			{"net/ipv4/ip_forward", "0"},
			{"net/ipv4/conf/lo/forwarding", "1"},
			{"net/ipv4/conf/all/arp_ignore", "0"},
		} {
			if err := Write(s[0], s[1]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var told []Change
	want := []Setting{
		{Key: "net/ipv4/conf/all/arp_ignore", Value: "1"},
		forward4,
		{Key: "net/ipv4/conf/none/forwarding", Value: "1", Optional: true},
	}
	changed, err := Set(path, want, func(c Change) { told = append(told, c) })
	if err != nil || !slices.Equal(changed, []string{want[0].Key, want[1].Key}) || len(told) != 2 {
		t.Fatalf("changed %v, told %v, %v", changed, told, err)
	}
	failing := []Setting{{Key: "net/ipv4/conf/all/arp_ignore", Value: "nonsense"}}
	if _, err := Set(path, failing,
		func(c Change) { t.Errorf("told of %v, which failed", c) }); err == nil {
		t.Error("nonsense was set")
	}
	if again, err := Set(path, want, nil); err != nil || len(again) != 0 {
		t.Errorf("again: %v, %v", again, err)
	}
	err = namespace.Inside(path, func() error {
		if err := Write(want[0].Key, "2"); err != nil {
			return err
		}
		ours, others, err := Changed(told)
		if err != nil || len(ours) != 1 || len(others) != 1 || !strings.Contains(others[0],
			"net.ipv4.conf.all.arp_ignore=2") {
			t.Errorf("ours %v, others %v, %v", ours, others, err)
		}
		if err := PutBack(ours); err != nil {
			return err
		}
		for key, want := range map[string]string{ForwardIPv4: "0", "net/ipv4/conf/lo/forwarding": "1", want[0].Key: "2"} {
			if is, err := Read(key); err != nil || is != want {
				t.Errorf("%s is %s, not %s (%v)", key, is, want, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if got := Dotted("net/ipv4/conf/eth0.100/forwarding"); got != "net/ipv4/conf/eth0.100/forwarding" {
		t.Errorf("a name with dots is %s", got)
	}
}

// TestPutBackRedirects: whether redirects are accepted is as it was, though the
// kernel changes that with forwarding, and firewalls have it off.
func TestPutBackRedirects(t *testing.T) {
	path := rig.NewTest(t, 1).Hosts()[0].Path()
	for _, accepted := range []string{"0", "1"} {
		var told []Change
		err := namespace.Inside(path, func() error {
			if err := Write(ForwardIPv4, "0"); err != nil {
				return err
			}
			return Write(redirects, accepted)
		})
		if err == nil {
			_, err = Set(path, []Setting{forward4}, func(c Change) { told = append(told, c) })
		}
		if err == nil {
			err = namespace.Inside(path, func() error {
				if err := PutBack(told); err != nil {
					return err
				}
				if is, err := Read(redirects); err != nil || is != accepted {
					t.Errorf("redirects: %s, not %s (%v)", is, accepted, err)
				}
				return nil
			})
		}
		if err != nil || len(told) != 1 {
			t.Fatalf("told %v, %v", told, err)
		}
	}
}
