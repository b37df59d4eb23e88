package mesh_test

import (
	"os"
	"strings"
	"testing"

	"meshd/mesh"
)

// What the kernel or a library would take, and nobody can have meant, is refused
// with what to write.
func TestMistypedConfig(t *testing.T) {
	for _, c := range []struct {
		says string
		cfg  mesh.Config
	}{
		{"node: \"höst\" has the character 'ö' in it", mesh.Config{Node: "höst"}},
		{"bind: other hosts cannot dial 255.255.255.255", mesh.Config{Bind: "255.255.255.255"}},
		{"bind: other hosts cannot dial 240.0.0.1", mesh.Config{Bind: "240.0.0.1:7946"}},
		{"bind: other hosts cannot dial 0.1.2.3", mesh.Config{Bind: "0.1.2.3"}},
		{"bind: other hosts cannot dial 224.0.0.1", mesh.Config{Bind: "::ffff:224.0.0.1"}},
		{"bind: 127.255.255.255 is the broadcast address of 127.0.0.0/8", mesh.Config{Bind: "127.255.255.255"}},
		{"advertise: other hosts cannot dial 240.0.0.1", mesh.Config{Advertise: "240.0.0.1"}},
		{"advertise: other hosts cannot dial 0.1.2.3", mesh.Config{Advertise: "0.1.2.3"}},
		{"advertise: fd00::1 is not of the family", mesh.Config{Bind: "::ffff:10.0.0.1", Advertise: "fd00::1"}},
		{"dns: 255.255.255.255 is no address of one host", mesh.Config{DNS: []string{"255.255.255.255"}}},
		{"dns: 127.255.255.255 is the broadcast address", mesh.Config{DNS: []string{"127.255.255.255"}}},
		{"dns: port 0 is another one after each start", mesh.Config{DNS: []string{"10.0.0.1:0"}}},
		{"dns: 10.1.1.1:53 is there twice", mesh.Config{DNS: []string{"10.1.1.1", "::ffff:10.1.1.1"}}},
		{"pools: no pool fits into 10.96.0.0/30", mesh.Config{Pools: []string{"10.96.0.0/30"}}},
		{"pools: no pool fits into fd00::/65", mesh.Config{Pools: []string{"fd00::/65"}}},
		{"pools: no pool may be in 127.0.0.0/16", mesh.Config{Pools: []string{"10.96.0.0/12", "127.0.0.0/16"}}},
		{"pools: no pool may be in fe80::/64", mesh.Config{Pools: []string{"fe80::/64"}}},
		{"pools: no pool may be in 169.254.0.0/16", mesh.Config{Pools: []string{"::ffff:169.254.0.0/112"}}},
		{"networks: front is there twice", mesh.Config{Networks: []string{"Front", "front"}}},
		{"domain: \"localhost\" has a meaning", mesh.Config{Domain: "localhost"}},
		{"domain: \"10.In-Addr.arpa.\" has a meaning", mesh.Config{Domain: "10.In-Addr.arpa."}},
		{"socket: \"unix:///run/s\": it is a path, without unix://; write /run/s", mesh.Config{Socket: "unix:///run/s"}},
		{"socket: \"@s\": abstract", mesh.Config{Socket: "@s"}},
		{"socket: \"~/s\": nothing replaces", mesh.Config{Socket: "~/s"}},
		{"socket: \"/run/s \": there is a space", mesh.Config{Socket: "/run/s "}},
		{"key-file: \"$HOME/key\": nothing replaces", mesh.Config{KeyFile: "$HOME/key"}},
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

// The data directory holds files of well-known names: it must be meshd's own.
func TestMistypedDataDir(t *testing.T) {
	for _, dir := range []string{"/", "//", "/../", "~/x", "$STATE/x", "{{ dir }}", "file:///x"} {
		if d := mesh.Examine(mesh.Config{Node: "a", Bind: "127.0.0.1", DataDir: dir}); len(d.Findings) == 0 ||
			!strings.Contains(d.Findings[0].What, "data-dir: \""+dir+"\"") {
			t.Errorf("%q: %+v", dir, d.Findings)
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
		if _, err := mesh.ReadConfig(written(t, head+text)); err == nil || !strings.Contains(err.Error(), line) ||
			!strings.Contains(err.Error(), rest) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
	many := strings.Repeat("# x\n", 1000) + "lb:none\nttl: 5s\n"
	if _, err := mesh.ReadConfig(written(t, many)); err == nil || !strings.Contains(err.Error(), "line ") {
		t.Errorf("a long file: %v", err)
	}
	quoted, err := mesh.ReadConfig(written(t, "bind: '[fd00::1]:7946'\n"))
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
		if _, err := mesh.ReadConfig(path); (err == nil) != ok || err != nil &&
			!strings.Contains(err.Error(), "chmod o-w "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// A key file that was written on another system.
func TestKeyFileOfAnotherSystem(t *testing.T) {
	if keys, err := mesh.ParseKeys("\ufeff" + aKey + "\r\n"); err != nil || len(keys) != 1 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}
