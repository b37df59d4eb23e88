package health

import (
	"errors"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var equal = cmpopts.EquateComparable(netip.Addr{})

func TestDefaults(t *testing.T) {
	c := parse(t, "http://:8080/healthz?full=1")
	want := &Check{
		Definition: Definition{Type: "http", Name: "http", Port: 8080, From: "host", Path: "/healthz?full=1", Method: "GET"},
		Codes:      []Codes{{200, 399}},
		Interval:   10 * time.Second, Timeout: 3 * time.Second, StartInterval: time.Second,
		FailingInterval: 2 * time.Second, Fall: 3, Rise: 2,
	}
	if d := cmp.Diff(want, c, equal); d != "" {
		t.Error(d)
	}
	c = parse(t, "tcp://,interval=500ms")
	if c.Timeout != c.Interval || c.StartInterval != c.Interval || c.FailingInterval != c.Interval {
		t.Errorf("what is longer than the interval by default: %+v", c)
	}
}

func TestOneLine(t *testing.T) {
	for line, want := range map[string]Definition{
		"tcp://:5432,timeout=1s":                          {Type: "tcp", Port: 5432, Timeout: "1s"},
		"tcp://:993,tls=true,expect=* OK":                 {Type: "tcp", Port: 993, TLS: true, Expect: "* OK"},
		"HTTP://:80":                                      {Type: "http", Port: 80, Path: "/"},
		`https://web.example:8443/a,"status=200-299,401"`: {Type: "https", Port: 8443, Host: "web.example", Path: "/a", Status: "200-299,401"},
		"https://[::1]/,header=X-A: b,skip-verify=1":      {Type: "https", Host: "::1", Path: "/", SkipVerify: true, Headers: map[string]string{"X-A": "b"}},
		"grpc://:9000/pkg.Service":                        {Type: "grpc", Port: 9000, Service: "pkg.Service"},
		"exec:/bin/check --fast x,fall=1,rise=5":          {Type: "exec", Command: []string{"/bin/check", "--fast", "x"}, Fall: 1, Rise: 5},
		"ttl:30s,name=beat":                               {Type: "ttl", TTL: "30s", Name: "beat"},
		"docker":                                          {Type: "docker"},
		"tcp://,from=sandbox,address=127.0.0.1":           {Type: "tcp", From: "sandbox", Address: "127.0.0.1"},
		"http://:1/,start-period=1m,start-interval=300ms": {Type: "http", Port: 1, Path: "/", StartPeriod: "1m", StartInterval: "300ms"},
	} {
		d, err := ParseFlag(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if diff := cmp.Diff(want, d); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
		if _, err := d.Parse(); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// Every field that a file can set can be set by a label and in a flag, and belongs to a type.
func TestEachFieldHasAKey(t *testing.T) {
	s := reflect.TypeFor[Definition]()
	for i := range s.NumField() {
		key := s.Field(i).Tag.Get("yaml")
		if json, _, _ := strings.Cut(s.Field(i).Tag.Get("json"), ","); strings.ReplaceAll(json, "_", "-") != key {
			t.Errorf("%s is %q in files and %q in JSON", s.Field(i).Name, key, json)
		}
		value := map[string]string{
			"headers": "A: b", "port": "80", "fall": "1", "rise": "1", "tls": "true", "skip-verify": "true",
		}[key]
		if key == "headers" {
			key = "header"
		}
		d := Definition{}
		if err := d.Set(key, cmpOr(value, "x")); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if reflect.ValueOf(d).Field(i).IsZero() {
			t.Errorf("%s sets another field", key)
		}
		if key = s.Field(i).Tag.Get("yaml"); key != "type" && key != "name" && fieldsOf[key] == nil {
			t.Errorf("%s belongs to no type", key)
		}
	}
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// C1: whoever writes a definition, hostile or tired, is told which field is wrong and
// what to write.
func TestHostileDefinitions(t *testing.T) {
	long := strings.Repeat("x", MaxText+1)
	headers := map[string]string{}
	for _, r := range "abcdefghijklmnopq" {
		headers[string(r)] = "x"
	}
	for _, x := range []struct {
		field string
		d     Definition
	}{
		{"type", Definition{}},
		{"type", Definition{Type: "icmp"}},
		{"name", Definition{Type: "tcp", Name: "a b"}},
		{"name", Definition{Type: "tcp", Name: "a\x1b[2J"}},
		{"name", Definition{Type: "tcp", Name: strings.Repeat("a", 64)}},
		{"port", Definition{Type: "tcp", Port: -1}},
		{"port", Definition{Type: "tcp", Port: 65536}},
		{"port", Definition{Type: "tcp", Port: math.MaxInt}},
		{"port", Definition{Type: "ttl", TTL: "3s", Port: 80}},
		{"from", Definition{Type: "tcp", From: "moon"}},
		{"address", Definition{Type: "tcp", From: "sandbox", Address: "169.254.169.254"}},
		{"address", Definition{Type: "tcp", From: "sandbox", Address: "localhost"}},
		{"address", Definition{Type: "tcp", Address: "127.0.0.1"}},
		{"path", Definition{Type: "http", Path: "healthz"}},
		{"path", Definition{Type: "http", Path: "/ HTTP/1.1\r\nX: y"}},
		{"path", Definition{Type: "http", Path: "/" + long}},
		{"path", Definition{Type: "tcp", Path: "/"}},
		{"host", Definition{Type: "http", Host: "a\r\nb"}},
		{"path", Definition{Type: "http", Path: "/%zz"}},
		{"host", Definition{Type: "http", Host: "web.example:8080"}},
		{"host", Definition{Type: "https", Host: "[::1]"}},
		{"host", Definition{Type: "https", Host: "fe80::1%eth0"}},
		{"method", Definition{Type: "http", Method: "DELETE"}},
		{"headers", Definition{Type: "http", Headers: headers}},
		{"headers", Definition{Type: "http", Headers: map[string]string{"a b": "c"}}},
		{"headers", Definition{Type: "http", Headers: map[string]string{"a": "b\r\nc: d"}}},
		{"headers", Definition{Type: "http", Headers: map[string]string{"Host": "b"}}},
		{"headers", Definition{Type: "http", Headers: map[string]string{"Transfer-Encoding": "chunked"}}},
		{"headers", Definition{Type: "http", Headers: map[string]string{"a": long}}},
		{"status", Definition{Type: "http", Status: "2xx"}},
		{"status", Definition{Type: "http", Status: "100-199"}},
		{"status", Definition{Type: "http", Status: "300-200"}},
		{"status", Definition{Type: "http", Status: "200,"}},
		{"status", Definition{Type: "http", Status: "99999999999999999999"}},
		{"status", Definition{Type: "http", Status: strings.Repeat("200,", 100) + "200"}},
		{"send", Definition{Type: "tcp", Send: long}},
		{"expect", Definition{Type: "tcp", Expect: "\xff"}},
		{"server-name", Definition{Type: "tcp", ServerName: "x"}},
		{"skip-verify", Definition{Type: "grpc", SkipVerify: true}},
		{"service", Definition{Type: "grpc", Service: "a\x00b"}},
		{"command", Definition{Type: "exec"}},
		{"command", Definition{Type: "exec", Command: []string{"check"}}},
		{"command", Definition{Type: "exec", Command: []string{"/a", "b\x00c"}}},
		{"command", Definition{Type: "exec", Command: make([]string, MaxCommand+1)}},
		{"command", Definition{Type: "http", Command: []string{"/bin/rm"}}},
		{"type", Definition{Type: "exec", Command: []string{"/a", strings.Repeat("b", MaxEncoded)}}},
		{"ttl", Definition{Type: "ttl"}},
		{"ttl", Definition{Type: "ttl", TTL: "0s"}},
		{"ttl", Definition{Type: "ttl", TTL: "25h"}},
		{"interval", Definition{Type: "docker", Interval: "1s"}},
		{"interval", Definition{Type: "tcp", Interval: "0"}},
		{"interval", Definition{Type: "tcp", Interval: "-1s"}},
		{"interval", Definition{Type: "tcp", Interval: "1ns"}},
		{"interval", Definition{Type: "tcp", Interval: "10"}},
		{"interval", Definition{Type: "tcp", Interval: "2562047h"}},
		{"interval", Definition{Type: "tcp", Interval: "9999999999999999999h"}},
		{"interval", Definition{Type: "tcp", Interval: strings.Repeat("1h", 1000)}},
		{"timeout", Definition{Type: "tcp", Interval: "1s", Timeout: "2s"}},
		{"timeout", Definition{Type: "tcp", Timeout: "0s"}},
		{"start-period", Definition{Type: "tcp", StartPeriod: "-1s"}},
		{"start-interval", Definition{Type: "tcp", StartInterval: "0s"}},
		{"failing-interval", Definition{Type: "tcp", FailingInterval: "0s"}},
		{"fall", Definition{Type: "tcp", Fall: -1}},
		{"fall", Definition{Type: "tcp", Fall: math.MaxInt}},
		{"rise", Definition{Type: "tcp", Rise: 101}},
	} {
		_, err := x.d.Parse()
		e, ok := errors.AsType[*FieldError](err)
		if !ok || e.Field != x.field || e.Fix == "" || len(err.Error()) > 300 {
			t.Errorf("%.80v: %v, want one about %s", x.d, err, x.field)
		}
	}
}

func TestHostileLines(t *testing.T) {
	for _, s := range []string{
		"", ",", "http", "http:", "ftp://x/", "http://u:p@h/", "http://:80/#x", "http://:99999/", "http://:0/", "tcp://:1/x",
		"tcp://:5432,interval", "tcp://,fall=0", "tcp://,fall=-1", "tcp://,fall=1e9", "tcp://,port=0", "tcp://,tls=maybe",
		"tcp://,nope=1", "tcp://,start_period=1s", `tcp://,"fall=1`, "tcp://\n", "tcp://,header=x", "http://[::1/",
		"tcp://," + strings.Repeat("a=", MaxEncoded), "exec:", "ttl:", "exec:check",
	} {
		d, err := ParseFlag(s)
		if err == nil {
			_, err = d.Parse()
		}
		if e, ok := errors.AsType[*FieldError](err); !ok || e.Fix == "" {
			t.Errorf("%.60q is taken, or refused without a fix: %v", s, err)
		}
	}
	_, err := ParseFlag("tcp://,start_period=1s")
	if e, ok := errors.AsType[*FieldError](err); !ok || !strings.Contains(e.Fix, "start-period") {
		t.Errorf("the field that is meant is not named: %v", err)
	}
}

func TestLabels(t *testing.T) {
	d, err := FromLabels(map[string]string{"": "http://:80/a,fall=2", "interval": "2s", "fall": "5"})
	want := Definition{Type: "http", Port: 80, Path: "/a", Interval: "2s", Fall: 5}
	if diff := cmp.Diff(want, d); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, labels := range []map[string]string{
		{"": "exec:/bin/true"},
		{"type": "EXEC", "command": "/bin/true"},
		{"": "tcp://", "command": "/bin/true"},
		{"": "nothing"},
		{"port": "x"},
	} {
		if d, err := FromLabels(labels); err == nil {
			t.Errorf("%v: %v", labels, d)
		}
	}
}

func FuzzParseFlag(f *testing.F) {
	for _, s := range []string{"http://:8080/healthz,interval=2s", "exec:/a b,fall=1", `tcp://,"expect=a,b"`, "ttl:30s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseFlag(s)
		if err != nil {
			return
		}
		c, err := d.Parse()
		if err != nil {
			return
		}
		back, err := Decode(Encode([]*Check{c}))
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if d := cmp.Diff([]*Check{c}, back, equal); d != "" {
			t.Fatal(d)
		}
	})
}

func TestChecksOfOneTask(t *testing.T) {
	tcp := Definition{Type: "tcp"}
	all, err := ParseAll([]Definition{tcp, {Type: "http"}, tcp})
	if err != nil {
		t.Fatal(err)
	}
	if all[0].Definition.Name != "tcp" || all[2].Definition.Name != "tcp-2" {
		t.Errorf("names: %q, %q", all[0].Definition.Name, all[2].Definition.Name)
	}
	back, err := Decode(Encode(all))
	if d := cmp.Diff(all, back, equal); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	for want, list := range map[string][]Definition{
		"checks":             make([]Definition, MaxChecks+1),
		"checks[1].name":     {{Type: "tcp", Name: "a"}, {Type: "http", Name: "A"}},
		"checks[1].interval": {tcp, {Type: "tcp", Interval: "x"}},
	} {
		_, err := ParseAll(list)
		if e, ok := errors.AsType[*FieldError](err); !ok || e.Field != want {
			t.Errorf("%v, want one about %s", err, want)
		}
	}
	for _, b := range []string{"{", "[{}]", `[{"type":"tcp","new":1}]`, "null x", `[{"type":"tcp","fall":1e999}]`} {
		if _, err := Decode([]byte(b)); err == nil {
			t.Errorf("%s is read", b)
		}
	}
}

// What a task prints is bounded, and does nothing to a terminal.
func TestOutputIsBoundedAndClean(t *testing.T) {
	var o Output
	o.Write([]byte("begin\x1b[31m\x00\xff\r\n"))
	chunk := []byte(strings.Repeat("é", 5000))
	for range 2000 {
		o.Write(chunk[1:]) // begins in the middle of a rune
	}
	o.Write([]byte("the end"))
	s := o.String()
	if len(s) > MaxOutput || !utf8.ValidString(s) ||
		!strings.HasPrefix(s, "begin[31m\n") || !strings.HasSuffix(s, "the end") {
		t.Errorf("%d bytes: %.40q", len(s), s)
	}
	if cap(o.head)+cap(o.tail) > 8*MaxOutput {
		t.Errorf("%d bytes are kept", cap(o.head)+cap(o.tail))
	}
	for _, r := range s {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			t.Errorf("the character %U", r)
		}
	}
	var small Output
	small.Write([]byte("ok\n"))
	if small.String() != "ok" {
		t.Errorf("%q", small.String())
	}
}
