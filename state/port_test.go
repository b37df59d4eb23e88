package state

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestPorts(t *testing.T) {
	for text, want := range map[string]Port{
		"80": {"", 80, 0, TCP}, "http:80": {"http", 80, 0, TCP}, "80:8080": {"", 80, 8080, TCP},
		"http:80:8080": {"http", 80, 8080, TCP}, "DNS:53:5353/UDP": {"dns", 53, 5353, UDP}, "80:80": {"", 80, 0, TCP},
		"a1:80:80/tcp": {"a1", 80, 0, TCP}, "1:65535": {"", 1, 65535, TCP},
	} {
		got, err := ParsePort(text)
		if err != nil || got != want {
			t.Errorf("L16: %q: %+v, %v, want %+v", text, got, err, want)
		}
		if again, err := ParsePort(got.String()); err != nil || again != got {
			t.Errorf("%q: %v is read as %+v: %v", text, got, again, err)
		}
	}
	if p := (Port{Number: 80}); p.Listens() != 80 {
		t.Errorf("port 80 listens at %d", p.Listens())
	}
	if p := (Port{Number: 80, Target: 8080}); p.Listens() != 8080 {
		t.Errorf("L16: port 80 of target 8080 listens at %d", p.Listens())
	}
}

// TestPortsAsPeopleMistypeThem: an error says what to write, and only what would
// be taken, and which of two numbers is wrong.
func TestPortsAsPeopleMistypeThem(t *testing.T) {
	for text, says := range map[string]string{
		"127.0.0.1:8080:80": "no address; write 8080:80", "127.0.0.1:8080:80/udp": "write 8080:80",
		"[::1]:80:81": "write 80:81", "8080:80:90": "write 80:90", "1.2.3.4:x:y": "write 8080:80", "a:1:2:3": "write 2:3",
		"0:80":     "the service's port is missing; a task that is at all ports of its service declares none",
		":80":      "the service's port is missing",
		"*:80/udp": "the service's port is missing",
		"80:":      `"" is not a number from 1 to 65535; it is where the task listens, and 80 before it is the service's`,
		"80:99999": `"99999" is not a number`, "80:0": `"0" is not a number`, "80:-1": `"-1" is not a number`,
		"99999:80": `the service's port "99999" is not a number`, "web:http:80": `the service's port "http" is not a number`,
		"80:http": "the name comes first; write http:80", "http:80:https": `"https" is not a number`,
		"http:80:tcp": "the protocol is behind a slash; write 80/tcp", "80:udp": "write 80/udp",
		"80/tcp:8080": "write 80:8080/tcp", "tcp/80:8080": "write 80:8080/tcp",
		"tcp/80": "write 80/tcp", "UDP/53": "write 53/udp", "http/80": "write http:80",
		"80/90": `protocol "90": use tcp or udp`, "80/90/tcp": `protocol "90/tcp"`,
		"80/": `protocol "": use tcp or udp`, "80/sctp": `protocol "sctp"`, "tcp/0": `protocol "0"`,
		"a b/80": `protocol "80"`, "a b:80": "name: ",
		// and that it ends
		"tcp/tcp/tcp": `protocol "tcp/tcp"`, "udp/tcp/tcp": `protocol "tcp/tcp"`, "80/tcp:80/tcp": `protocol "tcp:80/tcp"`,
		strings.Repeat("a/", 100_000): "use tcp or udp", strings.Repeat(":", 100_000): "write 8080:80",
	} {
		if p, err := ParsePort(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %v, %v, want %q", text, p, err, says)
		}
	}
}

// readAsBefore reads the ports of a body as the first versions do, which know no
// targets: it is their decoder, and must not change.
func readAsBefore(t *testing.T, body string) (ports []string, shown bool) {
	t.Helper()
	strange := false
	err := eachField(body, func(tag byte, v string) error {
		switch {
		case tag != 3:
		case len(v) < 3 || len(v) > 3 && checkLabel(v[3:]) != nil:
			return errBody
		case v[2] != 6 && v[2] != 17:
			strange = true
		case v[0] == 0 && v[1] == 0:
			return errBody
		default:
			ports = append(ports, v[3:]+":"+Port{Number: uint16(v[0])<<8 | uint16(v[1]), Proto: Proto(v[2])}.String())
		}
		return nil
	})
	if err != nil {
		t.Fatalf("a node of an earlier version finds the record malformed: %v", err)
	}
	return ports, !strange || len(ports) > 0
}

// TestPortsForEarlierVersions covers L16: a node that knows no targets leaves out the
// ports that have one, and an endpoint that has no others; never does it take such an
// endpoint for one that listens at all ports, or at the service's.
func TestPortsForEarlierVersions(t *testing.T) {
	plain, mapped := Port{"http", 80, 0, TCP}, Port{"api", 90, 9090, TCP}
	for _, c := range []struct {
		ports []Port
		want  string
		shown bool
	}{
		{nil, "", true},
		{[]Port{plain}, "http:80/tcp", true},
		{[]Port{mapped}, "", false},
		{[]Port{mapped, {"", 53, 5353, UDP}}, "", false},
		{[]Port{plain, mapped}, "http:80/tcp", true},
		{[]Port{mapped, plain}, "http:80/tcp", true},
	} {
		e := Endpoint{IP4: netip.MustParseAddr("10.0.0.1"), Weight: 1, Ports: c.ports}
		body := AppendEndpoint(nil, &e)
		got, shown := readAsBefore(t, string(body))
		if strings.Join(got, ",") != c.want || shown != c.shown {
			t.Errorf("L16: %v is read as %v, shown %v; want %q, %v", c.ports, got, shown, c.want, c.shown)
		}
		back, err := ParseEndpoint(string(body))
		if err != nil || !slices.Equal(back.Ports, c.ports) {
			t.Errorf("L16: %v is read as %v: %v", c.ports, back.Ports, err)
		}
		drained, err := WithDraining(body)
		if err != nil {
			t.Fatal(err)
		}
		if again, shown := readAsBefore(t, string(drained)); !slices.Equal(again, got) || shown != c.shown {
			t.Errorf("L16: %v drains as %v, shown %v", c.ports, again, shown)
		}
	}
}

// TestTargetsOnTheWire: the bytes are those that other versions expect.
func TestTargetsOnTheWire(t *testing.T) {
	e := Endpoint{IP4: netip.MustParseAddr("10.0.0.1"), Ports: []Port{{"a", 80, 8080, TCP}, {"", 53, 5353, UDP}}}
	const want = "\x01\x04\x0a\x00\x00\x01" + "\x03\x03\x00\x00\x00" + "\x0b\x06\x00\x50\x06\x1f\x90a" +
		"\x0b\x05\x00\x35\x11\x14\xe9"
	if got := string(AppendEndpoint(nil, &e)); got != want {
		t.Errorf("L16: %x, want %x", got, want)
	}
}

// TestTargetsThatAreWrong covers S17, G8: what no node writes is not shown.
func TestTargetsThatAreWrong(t *testing.T) {
	addr := putAddr(nil, tagIP4, netip.MustParseAddr("10.0.0.1"))
	body := func(fields ...string) string {
		b := slices.Clone(addr)
		for _, f := range fields {
			b = putField(b, f[0], []byte(f[1:])...)
		}
		return string(b)
	}
	for name, b := range map[string]string{
		"short":               body("\x0b\x00\x50\x06\x1f"),
		"empty":               body("\x0b"),
		"port 0":              body("\x0b\x00\x00\x06\x1f\x90"),
		"target 0":            body("\x0b\x00\x50\x06\x00\x00"),
		"name":                body("\x0b\x00\x50\x06\x1f\x90../.."),
		"two targets":         body("\x0b\x00\x50\x06\x1f\x90", "\x0b\x00\x50\x06\x1f\x91"),
		"with and without":    body("\x03\x00\x50\x06", "\x0b\x00\x50\x06\x1f\x90b"),
		"two, others between": body("\x0b\x00\x50\x06\x1f\x90", "\x03\x00\x51\x06", "\x0b\x00\x50\x06\x1f\x91c"),
	} {
		if e, err := ParseEndpoint(b); err == nil {
			t.Errorf("%s: taken as %+v", name, e)
		}
	}
	for name, c := range map[string]struct {
		body string
		want []Port
	}{
		"one target for two ports":   {body("\x0b\x00\x50\x06\x1f\x90", "\x0b\x00\x51\x06\x1f\x90"), []Port{{"", 80, 8080, TCP}, {"", 81, 8080, TCP}}},
		"one port, two names":        {body("\x0b\x00\x50\x06\x1f\x90a", "\x0b\x00\x50\x06\x1f\x90b"), []Port{{"a", 80, 8080, TCP}, {"b", 80, 8080, TCP}}},
		"one number, two protocols":  {body("\x0b\x00\x50\x06\x1f\x90", "\x0b\x00\x50\x11\x1f\x91"), []Port{{"", 80, 8080, TCP}, {"", 80, 8081, UDP}}},
		"the target is the port":     {body("\x0b\x00\x50\x06\x00\x50"), []Port{{"", 80, 0, TCP}}},
		"a protocol to come":         {body("\x0b\x00\x50\x84\x1f\x90"), nil},
		"a protocol to come, beside": {body("\x0b\x00\x50\x84\x1f\x90", "\x03\x00\x50\x06"), []Port{{"", 80, 0, TCP}}},
		"a name that is a number":    {body("\x0b\x00\x50\x06\x1f\x9088"), []Port{{"", 80, 8080, TCP}}},
	} {
		if e, err := ParseEndpoint(c.body); err != nil || !slices.Equal(e.Ports, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, e.Ports, err, c.want)
		}
	}
}

// TestMappedEntries: readers get the targets of tasks, and no target of a service.
func TestMappedEntries(t *testing.T) {
	a, b := pair(DefaultLimits())
	task := func(id string, ports ...Port) Change {
		e := Endpoint{IP4: netip.MustParseAddr("10.0.0.1"), Ports: ports}
		return Change{Kind: KindEndpoint, Key: id, Group: "web", Body: string(AppendEndpoint(nil, &e))}
	}
	strange := task("t5")
	strange.Body += string(putField(nil, tagMapped, 0, 80, 132, 0x1f, 0x90))
	commit(t, a, task("t1", Port{"", 80, 8001, TCP}), task("t2", Port{"", 80, 8002, TCP}),
		task("t3", Port{"", 80, 0, TCP}),
		task("t4", Port{"", 80, 8004, TCP}, Port{"", 443, 0, TCP}), strange)
	pull(t, a, b, "a", 1<<20)
	b.SetLiveness("a", Alive)
	b.Publish(1)
	s := b.View().Service("web")
	if want := []Port{{"", 80, 0, TCP}, {"", 443, 0, TCP}}; !slices.Equal(s.Ports, want) {
		t.Errorf("L16: the service has the ports %v, want %v", s.Ports, want)
	}
	got := map[string]string{}
	for _, e := range s.Members.All() {
		text := ""
		e.EachPort(func(p Port) { text += p.String() + " " })
		if e.OnlyMapped() {
			text += "only"
		}
		got[e.ID()] = text
	}
	for id, want := range map[string]string{
		"t1": "80:8001/tcp only", "t2": "80:8002/tcp only", "t3": "80/tcp ", "t4": "80:8004/tcp 443/tcp ",
	} {
		if got[id] != want {
			t.Errorf("L16: %s has %q, want %q", id, got[id], want)
		}
	}
	if _, shown := got["t5"]; shown {
		t.Error("S18: a task at a port of an unknown protocol is shown, as one that is at all ports")
	}
}
