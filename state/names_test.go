package state

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTaskNames: the names that a whole network resolves to a task are no
// domains of the internet and no reserved words.
func TestTaskNames(t *testing.T) {
	for s, ok := range map[string]bool{
		"www": true, "web-one": true, "db.internal": true, "a.b.local": true, "web.1.3f9c2a": true, "web.1": true,
		"x.home.arpa": true, "a.b": true,
		"cache.2.lfbkkcrmbecp": true, "web.1.abcdefghijklmnopqrstuvwxy": true, "web.n1.abcdefghijklmnopqrstuvwxy": true,
		"lfbkkcrmbecp": true, "www.lfbkkcrmbecp": false, "a.b.lfbkkcrmbecp": false, "www.1.com": false,
		"www.1.xn--abcdefghijklmnopqrstuv": false,
		"github.com":                       false, "www.google.com": false, "api.backend": false, "x.xn--p1ai": false,
		"in-addr.arpa": false,
		"localhost":    false, "x.localhost": false, "tasks": false, "nearest": false, "tasks.web": false, "": false, "A": false,
		"a..b": false,
	} {
		if err := CheckTaskName(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
	if CheckName("localhost") == nil || CheckNode("localhost") != nil || CheckNode("a.b") == nil {
		t.Error("localhost is no service; it may be a host's name")
	}
}

// TestOneFieldDoesNotHideAnEndpoint: what this version does not resolve or
// balance is left out, and the endpoint is shown without it.
func TestOneFieldDoesNotHideAnEndpoint(t *testing.T) {
	body := putAddr(nil, tagIP4, netip.MustParseAddr("10.0.0.1"))
	body = putField(body, tagPort, 0, 80, 132) // SCTP
	body = putField(body, tagPort, 0, 80, 6)
	body = putField(body, tagPort, 0x1f, 0x90, 6, '8', '0') // 8080, of the name 80: a mapping that an older version took
	for _, a := range []string{"github.com", "localhost", "www"} {
		body = putString(body, tagAlias, a)
	}
	body = putString(body, tagHostname, "example.com")
	body = putString(body, tagName, "bank.com")
	a, b := pair(DefaultLimits())
	commit(t, a, Change{Kind: KindEndpoint, Key: "t1", Group: "web", Body: string(body)})
	pull(t, a, b, "a", 1<<20)
	b.SetLiveness("a", Alive)
	b.Publish(1)
	s := b.View().Service("web")
	if s == nil || s.Members.Len() != 1 || b.Poison() != 0 {
		t.Fatalf("hidden: %+v", s)
	}
	if !slices.Equal(s.Ports, []Port{{Number: 80, Proto: TCP}, {Number: 8080, Proto: TCP}}) ||
		!slices.Equal(s.Aliases, []string{"www"}) {
		t.Errorf("%v %v", s.Ports, s.Aliases)
	}
	for _, name := range []string{"github.com", "localhost", "example.com", "bank.com"} {
		if m := b.View().Lookup(name); m.Kind != MatchNone {
			t.Errorf("%q is resolved: %+v", name, m)
		}
	}
	if ep := s.Members.At(0).Endpoint(); ep.Name != "" || ep.Hostname != "" || len(ep.Ports) != 2 {
		t.Errorf("%+v", ep)
	}
	if e := b.OwnerEntries("a", KindEndpoint)[0]; e.Body() != string(body) {
		t.Error("S11: not carried as it came")
	}
}

// TestSettingsAreBounded: the kernel is asked for known schedulers only, and no
// setting lasts longer than this version allows.
func TestSettingsAreBounded(t *testing.T) {
	body := putString(nil, tagScheduler, "evil_module")
	body = putUint(body, tagDrain, 1<<63)
	body = putUint(body, tagAffinity, 1<<63)
	body = putUint(body, tagTTL, 1<<63)
	body = putUint(body, tagMode, 77)
	c, err := ParseSettings(string(body))
	if want := (Settings{Mode: ModeDNSRR, Drain: time.Hour, Affinity: 24 * time.Hour, TTL: time.Hour}); err != nil ||
		c.Settings != want {
		t.Errorf("%+v %v, want %+v", c, err, want)
	}
}

// TestNamesAsPeopleMistypeThem: an error shows the character, not a byte of it.
func TestNamesAsPeopleMistypeThem(t *testing.T) {
	for text, says := range map[string]string{
		"höst": "the character 'ö'", "１２": "the character '１'",
		"a.b": "the character '.'", "a\xff": "the character '\uFFFD'", "web-": "inner '-'",
	} {
		if err := CheckName(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}
