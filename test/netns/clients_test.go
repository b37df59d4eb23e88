//go:build linux

package netns

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
)

// TestStockClients resolves and connects with programs that know nothing of
// meshd, in a task whose resolv.conf names its host's daemon.
func TestStockClients(t *testing.T) {
	t.Parallel()
	_, nodes := fleet.Up(t, 2)
	createNetwork(t, nodes)
	tasks := run(t, "web", nodes...)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error { return allResolve(ctx, "tasks.web", tasks) })
	from := tasks[0]
	a, err := from.Resolve(t.Context(), "web", dns.TypeA)
	must(t, err)
	vip := a.String()
	for _, tt := range []struct {
		command string
		wants   []string
	}{
		{"getent ahostsv4 web", []string{vip}},
		{"getent hosts web.collabnet", []string{vip}},
		{"curl -sS -m 5 http://web/", []string{"web-host"}},
		{"curl -sS -m 5 http://web.collabnet.mesh.internal/", []string{"web-host"}},
		{"dig +short +tcp web", []string{vip}},
		{"dig +short tasks.web", []string{tasks[0].Addr.String(), tasks[1].Addr.String()}},
		{"dig +short SRV _http._tcp.web", []string{" 80 "}},
		{"dig +noall +comments -x " + vip, []string{"NOERROR"}},
		{"dig +short -x " + vip, []string{"web.collabnet.mesh.internal."}},
		{"dig +noall +comments nothing", []string{"NXDOMAIN"}},
	} {
		t.Run(tt.command, func(t *testing.T) { stockClient(t, from, tt.command, tt.wants) })
	}
	goClient(t, from, vip)
}

// stockClient runs a command in the task's namespace, with a resolv.conf of its
// own.
func stockClient(t *testing.T, from *fleet.Task, command string, wants []string) {
	t.Helper()
	program, _, _ := strings.Cut(command, " ")
	for _, need := range []string{program, "unshare", "mount"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("%s is not installed", need)
		}
	}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(conf, []byte("nameserver "+from.Node.DNS.Addr().String()+"\n"), 0o644))
	inside := fmt.Sprintf(`if [ -e /etc/resolv.conf ]; then mount --bind %[1]s /etc/resolv.conf
else mount -t tmpfs none /etc && cat %[1]s > /etc/resolv.conf; fi && %[2]s`, conf, command) // the emulated machine has none
	out, err := from.Output("unshare", "-m", "sh", "-c", inside)
	if err != nil {
		t.Errorf("%s: %v", command, err)
	}
	for _, want := range wants {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s: got %q, want something with %q", command, out, want)
		}
	}
}

// goClient asks with the resolver of Go's standard library.
func goClient(t *testing.T, from *fleet.Task, vip string) {
	t.Helper()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, proto, _ string) (net.Conn, error) {
		return from.Dial(ctx, proto, from.Node.DNS.String())
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got, err := r.LookupHost(ctx, "web.")
	if err != nil || len(got) != 1 || got[0] != vip {
		t.Errorf("Go's resolver: web. is %v, %v; want %s", got, err, vip)
	}
	_, srv, err := r.LookupSRV(ctx, "http", "tcp", "web.")
	if err != nil || len(srv) == 0 || srv[0].Port != fleet.TaskPort {
		t.Errorf("Go's resolver: SRV of web. is %v, %v", srv, err)
	}
}
