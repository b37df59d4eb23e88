package mesh

import (
	"reflect"
	"testing"

	"meshd/lb/nft"
)

// TestSettingsAsFoundFirst: what cleanup puts back is what others wanted last, also
// where the node has changed its mind since (sloppy_tcp, which follows conntrack).
func TestSettingsAsFoundFirst(t *testing.T) {
	const key = "net/ipv4/vs/sloppy_tcp"
	for name, c := range map[string]struct{ changes, want []nft.SysctlChange }{
		"once":                     {[]nft.SysctlChange{{Key: key, Found: "0", Set: "1"}}, []nft.SysctlChange{{Key: key, Found: "0", Set: "1"}}},
		"after somebody else":      {[]nft.SysctlChange{{Key: key, Found: "0", Set: "2"}, {Key: key, Found: "1", Set: "2"}}, []nft.SysctlChange{{Key: key, Found: "1", Set: "2"}}},
		"after itself":             {[]nft.SysctlChange{{Key: key, Found: "0", Set: "1"}, {Key: key, Found: "1", Set: "2"}}, []nft.SysctlChange{{Key: key, Found: "0", Set: "2"}}},
		"after itself, back again": {[]nft.SysctlChange{{Key: key, Found: "0", Set: "1"}, {Key: key, Found: "1", Set: "0"}}, nil},
	} {
		s := newSysctls(savedSysctls{}, func(savedSysctls) error { return nil })
		for _, change := range c.changes {
			s.note(change)
		}
		if got := s.all; len(got)+len(c.want) > 0 && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v is put back, want %v", name, got, c.want)
		}
	}
}
