package control

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
)

// do sends one raw request to a handler over f.
func do(f *fake, method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h := newHandler(f, slog.New(slog.DiscardHandler), nil, defaultLimits())
	h.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	return w
}

// Bad requests are refused with the field's name and never reach the Backend.
func TestBadRequests(t *testing.T) {
	const ok = `"network":"n","service":"s","ips":["10.0.0.1"]`
	long := strings.Repeat("a", 64)
	for _, tt := range []struct {
		method, target, body string
		status               int
		field, says          string
	}{
		{"GET", "/", "", 404, "", "no route GET /"},
		{"GET", "/v2/status", "", 404, "", "no route"},
		{"PUT", "/v1/tasks", "", 405, "", "no method PUT"},
		{"GET", "/v1/status?verbose=1", "", 400, "verbose", "unknown query parameter"},
		{"GET", "/v1/tasks?networks=x", "", 400, "networks", "unknown query parameter"},
		{"GET", "/v1/tasks?network=a&network=b", "", 400, "network", "repeated"},
		{"GET", "/v1/tasks?network=%zz", "", 400, "", "query"},
		{"GET", "/v1/tasks?network=a.b", "", 400, "network", "'.'"},
		{"GET", "/v1/tasks?all=maybe", "", 400, "all", "neither"},
		{"GET", "/v1/tasks?service=a%20b", "", 400, "service", "character"},
		{"DELETE", "/v1/tasks/a.b", "", 400, "id", "character"},
		{"DELETE", "/v1/tasks/" + long, "", 400, "id", "longer than 63"},
		{"DELETE", "/v1/networks/tasks", "", 400, "network", "reserved"},
		{"GET", "/v1/services/web", "", 400, "network", "missing"},
		{"GET", "/v1/resolve?network=n", "", 400, "name", "DNS name"},
		{"GET", "/v1/resolve?network=n&name=a%0ab", "", 400, "name", "DNS name"},
		{"GET", "/v1/resolve?network=n&name=a&type=MX", "", 400, "type", "MX"},
		{"GET", "/v1/watch?from=-1", "", 400, "from", "not a number"},
		{"GET", "/v1/watch?until=1", "", 400, "until", "unknown"},
		{"POST", "/v1/tasks", "", 400, "", "empty"},
		{"POST", "/v1/tasks", "hello", 400, "", "not JSON"},
		{"POST", "/v1/tasks", "[]", 400, "", "not a JSON object"},
		{"POST", "/v1/tasks", "null", 400, "network", "missing"},
		{"POST", "/v1/tasks", "{" + ok + "}{}", 400, "", "data after"},
		{"POST", "/v1/tasks", "{" + ok, 400, "", "not JSON"},
		{"POST", "/v1/tasks", `{"networks":"n"}`, 400, "networks", "unknown field"},
		{"POST", "/v1/tasks", `{"slot":"1"}`, 400, "slot", "a JSON string cannot be a number"},
		{"POST", "/v1/tasks", `{"weight":65536}`, 400, "weight", "2^16-1"},
		{"POST", "/v1/tasks", `{"ips":"10.0.0.1"}`, 400, "ips", "a list"},
		{"POST", "/v1/tasks", `{"service":"s","ips":["10.0.0.1"]}`, 400, "network", "missing"},
		{"POST", "/v1/tasks", `{"network":"n","ips":["10.0.0.1"]}`, 400, "service", "missing"},
		{"POST", "/v1/tasks", `{"network":"n","service":"s"}`, 400, "ips", "needs an IP"},
		{"POST", "/v1/tasks", `{"network":"n","service":"s","ips":["10.0.0.300"]}`, 400, "ips", `"10.0.0.300" is not an IP`},
		{"POST", "/v1/tasks", `{"network":"n","service":"s","ips":["10.0.0.1/24"]}`, 400, "ips", "not an IP"},
		{"POST", "/v1/tasks", `{"network":"n","service":"s","ips":["224.0.0.1"]}`, 400, "ips", "unicast"},
		{"POST", "/v1/tasks", `{"network":"n","service":"s","ips":["10.0.0.1","10.0.0.2"]}`, 400, "ips", "one family"},
		{"POST", "/v1/tasks", `{"network":"n","service":"a.b","ips":["10.0.0.1"]}`, 400, "service", "character"},
		{"POST", "/v1/tasks", "{" + ok + `,"ports":["0"]}`, 400, "ports", "1 to 65535"},
		{"POST", "/v1/tasks", "{" + ok + `,"ports":["80/sctp"]}`, 400, "ports", "tcp or udp"},
		{"POST", "/v1/tasks", "{" + ok + `,"ports":["80:http"]}`, 400, "ports", "write http:80"},
		{"POST", "/v1/tasks", "{" + ok + `,"ports":[":5353/udp"]}`, 400, "ports", "declares none"},
		{"POST", "/v1/tasks", "{" + ok + `,"ports":["8000-8010:80"]}`, 400, "ports", `the service's port "8000-8010"`},
		{"POST", "/v1/tasks", "{" + ok + `,"ports":["127.0.0.1:80:8080"]}`, 400, "ports", "write 80:8080"},
		{"POST", "/v1/tasks", "{" + ok + `,"ports":["80:8080","80:8081"]}`, 400, "ports", "given twice"},
		{"POST", "/v1/tasks", "{" + ok + `,"ports":["80","x:80/tcp"]}`, 400, "ports", "given twice"},
		{"POST", "/v1/tasks", "{" + ok + `,"mode":"dns"}`, 400, "mode", "vip or dnsrr"},
		{"POST", "/v1/tasks", "{" + ok + `,"scheduler":"best"}`, 400, "scheduler", "best"},
		{"POST", "/v1/tasks", "{" + ok + `,"ttl":"90ms"}`, 400, "ttl", "90ms"},
		{"POST", "/v1/services/web?network=n", `{}`, 400, "mode", "nothing"},
		{"POST", "/v1/services/web?network=n", `{"ttl":"0s"}`, 400, "ttl", "0s"},
		{"POST", "/v1/services/web?network=n", `{"scheduler":"best"}`, 400, "scheduler", "best"},
		{"POST", "/v1/services/web", `{"mode":"vip"}`, 400, "network", ""},
		{"POST", "/v1/tasks", "{" + ok + `,"ttl":"2h"}`, 400, "ttl", "2h"},
		{"POST", "/v1/tasks", "{" + ok + `,"mode":"dnsrr","vips":["10.9.0.1"]}`, 400, "vips", "no virtual IP"},
		{"POST", "/v1/tasks", "{" + ok + `,"id":"a b"}`, 400, "id", "character"},
		{"POST", "/v1/tasks", "{" + ok + `,"aliases":["tasks.x"]}`, 400, "aliases", "reserved"},
		{"POST", "/v1/tasks", "{" + ok + `,"hostname":".."}`, 400, "hostname", "empty label"},
		{"POST", "/v1/tasks", "{" + ok + `,"name":"a_b/c"}`, 400, "name", "character"},
		{"POST", "/v1/tasks", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 413, "", "larger than"},
		{"POST", "/v1/networks", `{"subnet":"10.9.0.0/16"}`, 400, "name", "missing"},
		{"POST", "/v1/networks", `{"name":"n"}`, 400, "subnet", "needs a subnet"},
		{"POST", "/v1/networks", `{"name":"n","subnet":"10.9.0.0"}`, 400, "subnet", "not a CIDR"},
		{"POST", "/v1/networks", `{"name":"n","subnet":"10.9.0.1/16"}`, 400, "subnet", "bits set"},
		{"POST", "/v1/networks", `{"name":"n","subnet":"fd00::/64"}`, 400, "subnet", "not IPv4"},
		{"POST", "/v1/networks", `{"name":"n","subnet6":"10.9.0.0/16"}`, 400, "subnet6", "not IPv6"},
		{"POST", "/v1/networks", `{"name":"n","subnet":"10.9.0.0/31"}`, 400, "subnet", "too small"},
		{"POST", "/v1/networks", `{"name":"n","subnet":"10.0.0.0/7"}`, 400, "subnet", "too large"},
		{"POST", "/v1/networks", `{"name":"n","subnet":"127.0.0.0/8"}`, 400, "subnet", "loopback"},
		{"POST", "/v1/networks", `{"name":"n","subnet6":"fd00::/80"}`, 400, "subnet6", "cannot be a pool"},
		{"POST", "/v1/join", `{"addresses":[]}`, 400, "addresses", "none"},
		{"POST", "/v1/join", `{"addresses":["0.0.0.0"]}`, 400, "addresses", "no address of one host"},
		{"POST", "/v1/join", `{"addresses":["192.0.2.1:0"]}`, 400, "addresses", "port"},
		{"POST", "/v1/join", `{"addresses":["a:b:c"]}`, 400, "addresses", "not an address"},
		{"POST", "/v1/join", `{"addresses":["a b"]}`, 400, "addresses", "host's name"},
		{"POST", "/v1/keys/use", `{"key":"c2hvcnQ="}`, 400, "key", "neither"},
	} {
		f := newFake()
		w := do(f, tt.method, tt.target, tt.body)
		e, ok := refusal(w)
		if w.Code != tt.status || !ok || e.Field != tt.field || !strings.Contains(e.Message, tt.says) || e.Hint == "" &&
			tt.status == 400 && tt.target != "/v1/tasks?network=%zz" {
			t.Errorf("%s %s %.80s:\n got %d %s\nwant %d field %q message with %q", tt.method, tt.target, tt.body, w.Code, w.Body,
				tt.status, tt.field, tt.says)
		}
		if len(f.calls) > 0 {
			t.Errorf("%s %s %.80s: reached the Backend: %s", tt.method, tt.target, tt.body, f.last())
		}
	}
}

func refusal(w *httptest.ResponseRecorder) (e Error, ok bool) {
	err := json.Unmarshal(w.Body.Bytes(), &e)
	return e, err == nil && e.Code != "" && e.Message != "" && w.Header().Get("Content-Type") == "application/json"
}

// Names are the same in any case.
func TestNamesAreLowered(t *testing.T) {
	f := newFake()
	do(f, "GET", "/v1/services/WEB?network=CollabNet", "")
	if want := `Service {"Network":"collabnet","Name":"web"}`; f.last() != want {
		t.Errorf("got %s, want %s", f.last(), want)
	}
	p, err := AddTask{
		Network: "N", Service: "S", IPs: []string{"::ffff:10.0.0.1"}, SetService: SetService{Mode: "VIP"},
		Aliases: []string{"A"},
	}.Parse()
	if err != nil || p.Network != "n" || p.Endpoint.Service != "s" || p.Endpoint.Aliases[0] != "a" ||
		p.Endpoint.IP4.String() != "10.0.0.1" || p.Endpoint.Weight != 1 {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestKeyRequest(t *testing.T) {
	key, id, err := KeyRequest{Key: " AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"}.Parse()
	if err != nil || len(key) != KeySize || id != "" {
		t.Errorf("a key: got %d bytes, id %q, %v", len(key), id, err)
	}
	key2, id, err := KeyRequest{Key: KeyID(key)}.Parse()
	if err != nil || key2 != nil || id != KeyID(key) {
		t.Errorf("its id: got %d bytes, id %q, %v", len(key2), id, err)
	}
	if _, _, err = (KeyRequest{Key: "secret"}).Parse(); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("no key: got %v; the error must not show it", err)
	}
}

// FuzzRequest: whatever arrives, the handler answers with JSON and does not
// panic, and what reaches the Backend passes its own checks.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "/v1/tasks", []byte(`{"network":"n","service":"s","ips":["10.0.0.1"],"ports":["http:80"],"slot":3}`))
	f.Add("POST", "/v1/networks", []byte(`{"name":"n","subnet":"10.9.0.0/16","subnet6":"fd00::/64"}`))
	f.Add("POST", "/v1/join", []byte(`{"addresses":["192.0.2.1:7946","[fd00::1]:7946","host"]}`))
	f.Add("POST", "/v1/keys/install", []byte(`{"key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}`))
	f.Add("DELETE", "/v1/tasks/3f9c?network=n", []byte(nil))
	f.Add("GET", "/v1/resolve?name=a&network=n&type=SRV", []byte(nil))
	f.Add("POST", "/v1/tasks", []byte(`{"slot":1e99,"ips":[null],"x":{}}`))
	f.Fuzz(func(t *testing.T, method, target string, body []byte) {
		if strings.HasPrefix(target, "/v1/watch") || !strings.HasPrefix(target, "/") {
			return // a watch does not end by itself
		}
		r := httptest.NewRequest("GET", "/", strings.NewReader(string(body)))
		u, err := r.URL.Parse(target)
		if err != nil || u.Host != "" || u.Scheme != "" {
			return
		}
		r.Method, r.URL = method, u
		fake, w := newFake(), httptest.NewRecorder()
		newHandler(fake, slog.New(slog.DiscardHandler), nil, defaultLimits()).ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Fatalf("%s %s %q: %d %s", method, target, body, w.Code, w.Body)
		}
		if e, ok := refusal(w); w.Code >= 400 && !ok {
			t.Fatalf("%s %s %q: %d is not an Error: %+v", method, target, body, w.Code, e)
		}
	})
}

// FuzzAddTask: what Parse accepts is a valid endpoint.
func FuzzAddTask(f *testing.F) {
	f.Add([]byte(`{"network":"n","service":"s","ips":["10.0.0.1","fd00::1"],"ports":["http:80/udp"],"id":"x","hostname":"a.b"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var req AddTask
		if json.Unmarshal(b, &req) != nil {
			return
		}
		p, err := req.Parse()
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Field == "" || e.Hint == "" {
				t.Fatalf("%s: the error names no field or fix: %#v", b, err)
			}
			return
		}
		if p.Endpoint.ID == "" {
			p.Endpoint.ID = "x"
		}
		if err := p.Endpoint.Validate(); err != nil {
			t.Fatalf("%s: accepted, but %v", b, err)
		}
	})
}
