package config_test

import (
	"os"
	"strings"
	"testing"

	"meshd/mesh/config"
)

// What the kernel or a library would take, and nobody can have meant, is refused
// with what to write.
func TestMistypedConfig(t *testing.T) {
	for _, c := range []struct {
		says string
		cfg  config.Config
	}{
		{"node: \"höst\" has the character 'ö' in it", config.Config{Node: "höst"}},
		{"bind: other hosts cannot dial 255.255.255.255", config.Config{Bind: "255.255.255.255"}},
		{"bind: other hosts cannot dial 240.0.0.1", config.Config{Bind: "240.0.0.1:7946"}},
		{"bind: other hosts cannot dial 0.1.2.3", config.Config{Bind: "0.1.2.3"}},
		{"bind: other hosts cannot dial 224.0.0.1", config.Config{Bind: "::ffff:224.0.0.1"}},
		{"bind: 127.255.255.255 is the broadcast address of 127.0.0.0/8", config.Config{Bind: "127.255.255.255"}},
		{"advertise: other hosts cannot dial 240.0.0.1", config.Config{Advertise: "240.0.0.1"}},
		{"advertise: other hosts cannot dial 0.1.2.3", config.Config{Advertise: "0.1.2.3"}},
		{"advertise: fd00::1 is not of the family", config.Config{Bind: "::ffff:10.0.0.1", Advertise: "fd00::1"}},
		{"dns: 255.255.255.255 is no address of one host", config.Config{DNS: []string{"255.255.255.255"}}},
		{"dns: 127.255.255.255 is the broadcast address", config.Config{DNS: []string{"127.255.255.255"}}},
		{"dns: port 0 is another one after each start", config.Config{DNS: []string{"10.0.0.1:0"}}},
		{"dns: 10.1.1.1:53 is there twice", config.Config{DNS: []string{"10.1.1.1", "::ffff:10.1.1.1"}}},
		{"pools: no pool fits into 10.96.0.0/30", config.Config{Pools: []string{"10.96.0.0/30"}}},
		{"pools: no pool fits into fd00::/65", config.Config{Pools: []string{"fd00::/65"}}},
		{"pools: no pool may be in 127.0.0.0/16", config.Config{Pools: []string{"10.96.0.0/12", "127.0.0.0/16"}}},
		{"pools: no pool may be in fe80::/64", config.Config{Pools: []string{"fe80::/64"}}},
		{"pools: no pool may be in 169.254.0.0/16", config.Config{Pools: []string{"::ffff:169.254.0.0/112"}}},
		{"networks: front is there twice", config.Config{Networks: []string{"Front", "front"}}},
		{"domain: \"localhost\" has a meaning", config.Config{Domain: "localhost"}},
		{"domain: \"10.In-Addr.arpa.\" has a meaning", config.Config{Domain: "10.In-Addr.arpa."}},
		{"socket: \"unix:///run/s\": it is a path, without unix://; write /run/s", config.Config{Socket: "unix:///run/s"}},
		{"socket: \"@s\": abstract", config.Config{Socket: "@s"}},
		{"socket: \"~/s\": nothing replaces", config.Config{Socket: "~/s"}},
		{"socket: \"/run/s \": there is a space", config.Config{Socket: "/run/s "}},
		{"key-file: \"$HOME/key\": nothing replaces", config.Config{KeyFile: "$HOME/key"}},
	} {
		c.cfg.Insecure = true
		if c.cfg.Node == "" {
			c.cfg.Node = "a"
		}
		if got := refusal(t, c.cfg); !strings.Contains(got, c.says) {
			t.Errorf("got %q, want %q", got, c.says)
		}
	}
}

// What is no YAML is told with its own line, wherever the library gave up, and with
// what to write.
func TestMistypedYAML(t *testing.T) {
	const head = "# of host1\nnode: host1\njoin: [10.0.0.1,\n  10.0.0.2]\n" // four lines; the entries begin in the second
	for text, says := range map[string]string{
		"bind: [fd00::1]:7946\nlb: none\n": "line 5: did not find expected key; put the value into quotes: bind: " +
			"'[fd00::1]:7946'",
		"bind: ::\nlb: none\n":                "; put the value into quotes: bind: '::'",
		"pools: [10.96.0.0/12\nlb: none\n":    "; the list has no ] at its end",
		"lb: none\nttl: \"5s\n\nd1: 1h\n":     "line 6: found unexpected end of stream; a quote has no end",
		"lb:none\n":                           "; a space goes behind the colon",
		"\n# x\nlb=none\nttl: 5s\n":           "line 7: could not find expected ':'; write entries like \"node: host1\"",
		"  lb: none\n":                        "; entries begin at the start of their line",
		"dns: - 10.0.0.1\n":                   "; each item of a list has a line of its own, or write [ITEM, ITEM]",
		"dns: 10.0.0.1:53:\n":                 "; put the value into quotes: dns: '10.0.0.1:53:'",
		"- lb: none\n":                        "line 5: did not find expected key",
		"lb: none\ndomain: a\x07b\nttl: 5s\n": "line 6: control characters are not allowed",
		"lb: none\ndomain: m\xe9sh\n":         "line 6: ",
		"domain: *other\n":                    "line 5: unknown anchor 'other' referenced",
		"bind: {{ address }}\n": "line 5: bind: it has entries of its own, in braces; is it a template that " +
			"was not filled in?",
	} {
		if !strings.HasPrefix(says, "line ") {
			says = "line 5: |" + says
		}
		line, rest, _ := strings.Cut(says, "|")
		if _, err := config.Read(written(t, head+text)); err == nil || !strings.Contains(err.Error(), line) ||
			!strings.Contains(err.Error(), rest) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
	many := strings.Repeat("# x\n", 1000) + "lb:none\nttl: 5s\n"
	if _, err := config.Read(written(t, many)); err == nil || !strings.Contains(err.Error(), "line ") {
		t.Errorf("a long file: %v", err)
	}
	quoted, err := config.Read(written(t, "bind: '[fd00::1]:7946'\n"))
	if err != nil || quoted.Bind != "[fd00::1]:7946" {
		t.Errorf("what is advised: %+v, %v", quoted, err)
	}
}

// Who can change the configuration is in charge of the host.
func TestConfigForAll(t *testing.T) {
	path := written(t, "node: a\n")
	for mode, ok := range map[os.FileMode]bool{0o644: true, 0o664: true, 0o666: false, 0o602: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Read(path); (err == nil) != ok || err != nil &&
			!strings.Contains(err.Error(), "chmod o-w "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}
