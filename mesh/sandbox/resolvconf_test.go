package sandbox

import (
	"bytes"
	"strings"
	"testing"
)

func TestRender(t *testing.T) {
	const head = "# meshd, for sandbox web: its end puts back what was here.\nnameserver 127.0.0.11\n"
	for previous, want := range map[string]string{
		"": "options ndots:0\n",
		"nameserver 192.0.2.1\nnameserver 192.0.2.2\n":    "options ndots:0\n",
		"# c\n; c\nsearch a.example  b.example\n":         "search a.example b.example\noptions ndots:0\n",
		"domain example\nsortlist 10.0.0.0/8":             "domain example\nsortlist 10.0.0.0/8\noptions ndots:0\n",
		"options edns0 ndots:5\n":                         "options edns0 ndots:5\n",
		"options edns0\noptions rotate trust-ad\n":        "options edns0 rotate trust-ad ndots:0\n",
		"nameserver\noptions\nsearch\nfamily inet4 inet6": "options ndots:0\n",
	} {
		if got := string(render([]byte(previous), "web")); got != head+want {
			t.Errorf("of %q:\ngot  %q\nwant %q", previous, got, head+want)
		}
	}
}

// Whatever a container had, it gets exactly our server, and rendering the
// result again changes nothing.
func FuzzRender(f *testing.F) {
	for _, seed := range []string{"", "nameserver 1.1.1.1\nsearch x y\n", "options ndots:2\n", "\x00\n\r\nsearch\ta", "options nameserver 9.9.9.9"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, previous []byte) {
		got := render(previous, "web")
		servers, ndots := 0, 0
		for line := range strings.Lines(string(got)) {
			fields := strings.Fields(line)
			if !strings.HasSuffix(line, "\n") || len(fields) == 0 {
				t.Fatalf("line %q", line)
			}
			if fields[0] == "nameserver" {
				servers++
			}
			if fields[0] == "options" && strings.Contains(line, "ndots:") {
				ndots++
			}
		}
		if servers != 1 || ndots != 1 {
			t.Fatalf("%d servers, %d lines with ndots in %q", servers, ndots, got)
		}
		if again := render(got, "web"); !bytes.Equal(again, got) {
			t.Fatalf("rendered again, %q becomes %q", got, again)
		}
	})
}
