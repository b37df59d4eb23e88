package hostchanges

import (
	"errors"
	"os"
	"reflect"
	"testing"

	"meshd/lb/hostcheck"
	"meshd/lb/hostmend"
	"meshd/lb/sysctl"
	"meshd/mesh/internal/store/storetest"
)

// TestSettingsAsFoundFirst: what cleanup puts back is what others wanted last, also
// where the node has changed its mind since (sloppy_tcp, which follows conntrack).
func TestSettingsAsFoundFirst(t *testing.T) {
	const key = "net/ipv4/vs/sloppy_tcp"
	for name, c := range map[string]struct{ changes, want []sysctl.Change }{
		"once":                     {[]sysctl.Change{{Key: key, Found: "0", Set: "1"}}, []sysctl.Change{{Key: key, Found: "0", Set: "1"}}},
		"after somebody else":      {[]sysctl.Change{{Key: key, Found: "0", Set: "2"}, {Key: key, Found: "1", Set: "2"}}, []sysctl.Change{{Key: key, Found: "1", Set: "2"}}},
		"after itself":             {[]sysctl.Change{{Key: key, Found: "0", Set: "1"}, {Key: key, Found: "1", Set: "2"}}, []sysctl.Change{{Key: key, Found: "0", Set: "2"}}},
		"after itself, back again": {[]sysctl.Change{{Key: key, Found: "0", Set: "1"}, {Key: key, Found: "1", Set: "0"}}, nil},
	} {
		s := New(Saved{}, func(Saved) error { return nil })
		for _, change := range c.changes {
			s.Sysctl(change)
		}
		if got := s.sysctls; len(got)+len(c.want) > 0 && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v is put back, want %v", name, got, c.want)
		}
	}
}

// What changed is saved, once there is something; a record of another boot is not taken
// over, and a disk that fails loses nothing.
func TestRecordIsSaved(t *testing.T) {
	if _, err := os.Stat("/proc/sys/kernel/random/boot_id"); err != nil {
		t.Skip("no Linux")
	}
	var disk storetest.Dir
	save := func(s Saved) error { return disk.Save("sysctls.json", s) }
	r := New(Saved{}, save)
	if err := r.Write(); err != nil || disk.Writes() != 0 {
		t.Errorf("an empty record: %v, %d writes", err, disk.Writes())
	}
	rule := hostcheck.AcceptRule{Match: []string{"ip", "daddr", "10.96.0.0/16"}}
	r.Sysctl(sysctl.Change{Key: "net/ipv4/ip_forward", Found: "0", Set: "1"})
	r.Port(hostmend.Port{Name: "veth1"})
	r.AddRules([]hostcheck.AcceptRule{rule, rule})
	r.SetDriver("nft")
	disk.Fail(errors.New("no space left"))
	if err := r.Write(); err == nil {
		t.Error("saved on a full disk")
	}
	disk.Fail(nil)
	if err := r.Write(); err != nil {
		t.Fatal(err)
	}
	var saved Saved
	if err := disk.Load("sysctls.json", &saved); err != nil || !saved.Here() {
		t.Fatalf("%+v, %v", saved, err)
	}
	again := New(saved, save)
	if len(again.Sysctls()) != 1 || len(again.Ports()) != 1 || len(again.Rules()) != 1 || again.Driver() != "nft" {
		t.Errorf("after a restart: %+v", again)
	}
	again.KeepPorts(nil)
	if len(again.Ports()) != 1 {
		t.Error("ports are forgotten though no device could be read")
	}
	again.KeepPorts([]hostcheck.Device{{Name: "eth0"}})
	again.RemoveRules([]hostcheck.AcceptRule{rule})
	if len(again.Ports())+len(again.Rules()) != 0 {
		t.Errorf("left: %v, %v", again.Ports(), again.Rules())
	}
	saved.Boot = "another"
	if other := New(saved, save); len(other.Sysctls()) != 0 {
		t.Error("the record of another boot is taken over")
	}
}
