package mesh_test

import (
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
		if d := mesh.Examine(mesh.Config{Node: "a", Bind: "127.0.0.1", DataDir: dir}); len(d.Findings) == 0 || !strings.Contains(d.Findings[0].What, "data-dir: \""+dir+"\"") {
			t.Errorf("%q: %+v", dir, d.Findings)
		}
	}
}
