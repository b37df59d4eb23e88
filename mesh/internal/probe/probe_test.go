package probe

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"meshd/mesh/health"
)

func check(t testing.TB, line string) *health.Check {
	t.Helper()
	d, err := health.ParseFlag(line)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Parse()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wants runs a check and compares what it finds: the beginning of the outcome and a part
// of the output.
func wants(t *testing.T, line string, to Target, outcome health.Outcome, says string) {
	t.Helper()
	r := Run(t.Context(), check(t, line), to)
	if r.Outcome != outcome || !strings.Contains(r.Output, says) {
		t.Errorf("%s: %s, %.300q; want %s with %q", line, r.Outcome, r.Output, outcome, says)
	}
	if len(r.Output) > health.MaxOutput {
		t.Errorf("%s: %d bytes of output", line, len(r.Output))
	}
}

func at(t testing.TB, addr string) Target {
	t.Helper()
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return Target{Addr: ap}
}

// serve answers each connection with f until the test ends.
func serve(t *testing.T, f func(c net.Conn)) Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); f(c) }()
		}
	}()
	return at(t, l.Addr().String())
}

// endless writes a text again and again until the other side has enough.
func endless(c io.Writer, text string) {
	for {
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
	}
}

// trickle writes one byte at a time, more slowly than anybody wants to wait.
func trickle(c net.Conn, text string) {
	for i := range text {
		if _, err := c.Write([]byte{text[i]}); err != nil {
			return
		}
		var b [1]byte
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = c.Read(b[:])
	}
}

// closedPort is where nobody listens.
func closedPort(t *testing.T) Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return at(t, l.Addr().String())
}

func TestTCP(t *testing.T) {
	smtp := serve(t, func(c net.Conn) {
		io.WriteString(c, "220 ready\r\n")
		b := make([]byte, 4)
		io.ReadFull(c, b)
		fmt.Fprintf(c, "250 %s\x1b[2J\r\n", b)
	})
	wants(t, "tcp://", smtp, health.Passed, "connected")
	wants(t, "tcp://,send=EHLO,expect=250 EHLO", smtp, health.Passed, "220 ready")
	wants(t, "tcp://,send=EHLO,expect=500", smtp, health.Failed, `no "500"`)
	wants(t, "tcp://", closedPort(t), health.Failed, "refused")

	silent := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	wants(t, "tcp://,expect=x,timeout=100ms", silent, health.Failed, "no answer within 100ms")
	wants(t, "tcp://,tls=1,timeout=100ms", silent, health.Failed, "no answer within 100ms")
	long := strings.Repeat("y", 4000)
	wants(t, "tcp://,expect=x", serve(t, func(c net.Conn) { endless(c, long) }), health.Failed, "the first 4096 bytes")
	slow := serve(t, func(c net.Conn) { trickle(c, long) })
	wants(t, "tcp://,expect=x,timeout=200ms", slow, health.Failed, "no answer")
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "host %s, name %q", r.Host, r.TLS.ServerName)
	}))
	t.Cleanup(s.Close)
	to := at(t, s.Listener.Addr().String())
	wants(t, "https://", to, health.Failed, "certificate")
	wants(t, "https://web.example/,skip-verify=1", to, health.Passed,
		fmt.Sprintf("host web.example:%d, name \"web.example\"", to.Addr.Port()))
	wants(t, "https://web.example/,skip-verify=1,server-name=other.example", to, health.Passed, `name "other.example"`)
	wants(t, "tcp://,tls=1", to, health.Failed, "certificate")
	wants(t, "tcp://,tls=1,skip-verify=1", to, health.Passed, "connected")
	wants(t, "https://", serve(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n") }), health.Failed, "")
}

func TestHTTP(t *testing.T) {
	var status atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(int(status.Load()))
		fmt.Fprintf(w, "%s %s %s %s close=%v", r.Method, r.URL, r.Host, r.Header.Get("X-A"), r.Close)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	to := at(t, s.Listener.Addr().String())
	for _, x := range []struct {
		status  int64
		line    string
		outcome health.Outcome
	}{
		{200, "http://", health.Passed},
		{204, "http://", health.Passed},
		{399, "http://", health.Passed},
		{400, "http://", health.Failed},
		{503, "http://", health.Failed},
		{401, `http://,"status=200,401"`, health.Passed},
		{201, `http://,"status=200,401"`, health.Failed},
	} {
		status.Store(x.status)
		wants(t, x.line, to, x.outcome, "")
	}
	status.Store(200)
	wants(t, "http:///a?b=c,header=X-A: b,method=post", to, health.Passed, "POST /a?b=c 127.0.0.1:")
	wants(t, "http://,header=X-A: b", to, health.Passed, " b close=true")
	wants(t, "http://,expect=GET", to, health.Passed, "")
	wants(t, "http://,expect=PUT", to, health.Failed, `no "PUT"`)
	wants(t, "http://", closedPort(t), health.Failed, "refused")
}

// A redirect is an answer. Following it would let a task have this node ask whomever it likes.
func TestRedirectsLeadNowhere(t *testing.T) {
	var asked atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(other.Close)
	s := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	t.Cleanup(s.Close)
	to := at(t, s.Listener.Addr().String())
	wants(t, "http://", to, health.Passed, "302")
	wants(t, "http://,status=200", to, health.Failed, "302")
	// Nor does a host in the check, a proxy of the environment or an alternative service lead anywhere.
	t.Setenv("HTTP_PROXY", other.URL)
	wants(t, "http://"+other.Listener.Addr().String()+"/,port="+fmt.Sprint(to.Addr.Port()), to, health.Passed, "302")
	if n := asked.Load(); n != 0 {
		t.Errorf("the other host was asked %d times", n)
	}
}

func TestHostileHTTP(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	read := func(c net.Conn) { c.Read(make([]byte, 4096)) }
	for _, x := range []struct {
		what    string
		f       func(c net.Conn)
		outcome health.Outcome
		says    string
	}{
		{"never answers", func(c net.Conn) { io.Copy(io.Discard, c) }, health.Failed, "no answer within"},
		{"never ends", func(c net.Conn) { read(c); io.WriteString(c, ok+"\r\n"); endless(c, "more and more ") }, health.Passed, "more and more"},
		{"never ends its headers", func(c net.Conn) { read(c); io.WriteString(c, ok); endless(c, "X-More: and more\r\n") }, health.Failed, ""},
		{"one endless header", func(c net.Conn) { read(c); io.WriteString(c, ok+"X: "); endless(c, "yyyyyyyyyyyyyyyy") }, health.Failed, ""},
		{"endless early answers", func(c net.Conn) { read(c); endless(c, "HTTP/1.1 103 Early Hints\r\n\r\n") }, health.Failed, ""},
		{"a slow trickle of headers", func(c net.Conn) { read(c); trickle(c, ok+strings.Repeat("X: y\r\n", 1000)) }, health.Failed, "no answer within"},
		{"a slow trickle of a body", func(c net.Conn) { read(c); io.WriteString(c, ok+"\r\n"); trickle(c, strings.Repeat("y", 9999)) }, health.Failed, "no answer within"},
		{"a body shorter than it says", func(c net.Conn) { read(c); io.WriteString(c, ok+"Content-Length: 100\r\n\r\nshort") }, health.Failed, "EOF"},
		{"a length beyond all bounds", func(c net.Conn) { read(c); io.WriteString(c, ok+"Content-Length: 99999999999999999999\r\n\r\n") }, health.Failed, ""},
		{"no HTTP", func(c net.Conn) { read(c); io.WriteString(c, "\x00\xff\x1b[2J\n") }, health.Failed, ""},
		{"nothing at all", func(c net.Conn) { read(c) }, health.Failed, "EOF"},
	} {
		t.Run(x.what, func(t *testing.T) {
			t.Parallel()
			to := serve(t, x.f)
			wants(t, "http://,interval=500ms,timeout=500ms", to, x.outcome, x.says)
		})
	}
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), grpchealth.NewServer()
	grpc_health_v1.RegisterHealthServer(s, h)
	h.SetServingStatus("up", grpc_health_v1.HealthCheckResponse_SERVING)
	h.SetServingStatus("down", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	to := at(t, l.Addr().String())
	wants(t, "grpc://", to, health.Passed, "SERVING")
	wants(t, "grpc:///up", to, health.Passed, "SERVING")
	wants(t, "grpc:///down", to, health.Failed, "NOT_SERVING")
	wants(t, "grpc:///other", to, health.Failed, "does not know the service")
	wants(t, "grpc://", closedPort(t), health.Failed, "refused")
	wants(t, "grpc://,tls=1", to, health.Failed, "")

	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bare := grpc.NewServer()
	go bare.Serve(plain)
	t.Cleanup(bare.Stop)
	wants(t, "grpc://", at(t, plain.Addr().String()), health.Failed, "has no grpc.health.v1.Health")
	silent := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	wants(t, "grpc://,timeout=200ms", silent, health.Failed, "no answer within")
	wants(t, "grpc://,timeout=300ms", serve(t, func(c net.Conn) { endless(c, "x") }), health.Failed, "")
}

// C5: what this node lacks is not the task's fault.
func TestUnknownIsNoFailure(t *testing.T) {
	to := closedPort(t)
	for _, err := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, ErrNoNamespace} {
		to.Inside = func(func() error) error { return fmt.Errorf("socket: %w", err) }
		for _, line := range []string{"tcp://", "http://", "grpc://"} {
			wants(t, line, to, health.Unknown, "this node cannot ask")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := Run(ctx, check(t, "tcp://"), at(t, "127.0.0.1:1")); r.Outcome != health.Unknown {
		t.Errorf("a run that was ended: %v", r)
	}
	wants(t, "ttl:3s", to, health.Unknown, "")
}
