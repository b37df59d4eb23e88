package sandbox

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestRender(t *testing.T) {
	const head = "# meshd, for sandbox web: its end puts back what was here.\nnameserver 127.0.0.11\n"
	for previous, want := range map[string]string{
		"": "options ndots:0\n# What was here:\n",
		"nameserver 192.0.2.1\nnameserver 192.0.2.2\n": "options ndots:0\n# What was here:\n#|nameserver " +
			"192.0.2.1\n#|nameserver 192.0.2.2\n",
		"# c\n; c\nsearch a.example  b.example\n": "search a.example b.example\noptions ndots:0\n# What was " +
			"here:\n#|# c\n#|; c\n#|search a.example  b.example\n",
		"domain example\nsortlist 10.0.0.0/8": "domain example\nsortlist 10.0.0.0/8\noptions ndots:0\n# What was " +
			"here:\n#|domain example\n#\\sortlist 10.0.0.0/8\n",
		"options edns0 ndots:5\n": "options edns0 ndots:5\n# What was here:\n#|options edns0 ndots:5\n",
	} {
		if got := string(render([]byte(previous), false, "web")); got != head+want {
			t.Errorf("of %q:\ngot  %q\nwant %q", previous, got, head+want)
		}
	}
	if got := string(render(nil, true, "web")); got != head+"options ndots:0\n# There was no such file.\n" {
		t.Errorf("of no file: %q", got)
	}
}

// What was written before the old text was kept in it still has its search list.
func TestRecoverWithoutText(t *testing.T) {
	const text = headOurs + "web: its end puts back what was here.\nnameserver 127.0.0.11\nsearch example.org\noptions " +
		"ndots:0\n"
	got, created, ours := recovered([]byte(text))
	if string(got) != "search example.org\noptions ndots:0\n" || created || !ours {
		t.Errorf("%q, %v, %v", got, created, ours)
	}
}

// Only a resolv.conf is accepted, and an error shows nothing of another file.
func TestCheckText(t *testing.T) {
	for _, fine := range []string{
		"", "\n\n", "nameserver 1.1.1.1\r\n", "  search a\n", "# root:x:0\n; \xff\n", "options ndots:1", "family inet6",
		"lookup file bind\n", "sortlist 10.0.0.0/8\n\tdomain x",
	} {
		if err := checkText([]byte(fine)); err != nil {
			t.Errorf("%q: %v", fine, err)
		}
	}
	for _, bad := range []string{
		"root:x:0:0:root:/root:/bin/bash\n", "nameserver 1.1.1.1\nsecret", "nameservers 1.1.1.1\n", "{\"secret\": 1}",
		"secret nameserver\n",
		"# \x00secret", "\x7fELFsecret", "127.0.0.1 localhost\n", "NAMESERVER 1.1.1.1\n",
	} {
		err := checkText([]byte(bad))
		if !errors.Is(err, errNotResolvConf) {
			t.Errorf("%q: %v", bad, err)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "root") {
			t.Errorf("%q is told: %v", bad, err)
		}
	}
}

// Whatever a container had, it gets exactly our server, what was there comes out
// again, and what is written passes for a resolv.conf.
func FuzzRender(f *testing.F) {
	for _, seed := range []string{
		"", "nameserver 1.1.1.1\nsearch x y\n", "options ndots:2\n", "\x00\n\r\nsearch\ta",
		"options nameserver 9.9.9.9", "#|\n#\\", headNothing, headWas, "\n" + headWas,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, previous []byte) {
		got := render(previous, false, "web")
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
		if again, created, ours := recovered(got); !bytes.Equal(again, previous) || created || !ours {
			t.Fatalf("%q comes back from %q as %q, %v, %v", previous, got, again, created, ours)
		}
		if checkText(previous) == nil {
			if err := checkText(got); err != nil {
				t.Fatalf("%q is written for %q: %v", got, previous, err)
			}
		}
		if len(previous) <= maxResolvConf && len(got) > maxWritten {
			t.Fatalf("%d bytes are written for %d", len(got), len(previous))
		}
	})
}
