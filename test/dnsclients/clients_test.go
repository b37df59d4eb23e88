//go:build linux

package dnsclients

// This file owns the table: the cases, and what each client makes of them.

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/mesh/control"
	"meshd/test/fleet"
)

// stall is what no client may wait for an answer: one try of an upstream, which
// takes two seconds, and some time for a busy machine. Stub resolvers give up
// after five seconds.
const stall = 4500 * time.Millisecond

// limit is what a client makes of a case through no fault of the server.
type limit struct {
	want   string
	why    string
	within time.Duration // 0: stall
}

// example is one row of the table.
type example struct {
	name   string
	conf   string // lines of resolv.conf beside the name server
	args   []string
	want   string
	limits map[string]limit // by client
}

func lookup(name string) []string { return []string{"lookup", "any", name} }

const (
	upstream1 = "192.0.2.1"
	muslServ  = "musl takes SERVFAIL, REFUSED and NOTIMP for no reply, waits and fails with EAI_AGAIN"
	muslNX    = "musl takes NXDOMAIN of one type for that of the name"
	muslTC    = "musl 1.2.3 knows no TCP and uses the part of a truncated answer"
	caresNX   = "c-ares ends the search at any error other than NXDOMAIN"
)

func again(why string) map[string]limit {
	return map[string]limit{"musl": {want: "again", why: why, within: 11 * time.Second}}
}

func part(addresses string) map[string]limit {
	return map[string]limit{"musl": {want: addresses, why: muslTC}}
}

// meshCases are names of the mesh; see populate.
func meshCases(vip string, tasks []string) []example {
	both := strings.Join(tasks, " ")
	return []example{
		{name: "service", args: lookup("web"), want: vip},
		{name: "service.network", args: lookup("web.collabnet"), want: vip},
		{name: "service.network.domain", args: lookup("web.collabnet.mesh.internal"), want: vip},
		{name: "with a final dot", args: lookup("web.collabnet.mesh.internal."), want: vip},
		{name: "upper case", args: lookup("WeB.ColLabnet"), want: vip},
		{name: "only A exists, A asked", args: []string{"lookup", "4", "web"}, want: vip},
		{name: "only A exists, AAAA asked", args: []string{"lookup", "6", "web"}, want: "notfound"},
		{name: "tasks.service", args: lookup("tasks.web"), want: both},
		{name: "nearest.service", args: lookup("nearest.web"), want: both},
		{name: "alias", args: lookup("www"), want: "10.1.9.1 fd21::9:1"},
		{name: "container name", args: lookup("dual-one.collabnet"), want: "10.1.9.1 fd21::9:1"},
		{name: "task name", args: lookup("dual.1.dual1.collabnet.mesh.internal"), want: "10.1.9.1 fd21::9:1"},
		{name: "dnsrr, both families", args: lookup("dual"), want: "10.1.9.1 fd21::9:1"},
		{name: "dnsrr, AAAA asked", args: []string{"lookup", "6", "dual"}, want: "fd21::9:1"},
		{name: "sixty tasks", args: lookup("tasks.big"), want: "60 addresses", limits: part("30 addresses")},
		{name: "unknown bare name", args: lookup("nothing"), want: "notfound"},
		{name: "unknown name of the network", args: lookup("nothing.collabnet"), want: "notfound"},
		{name: "unknown qualified name", args: lookup("nothing.collabnet.mesh.internal"), want: "notfound"},
		{name: "empty non-terminal", args: lookup("tasks.collabnet"), want: "notfound"},
		{name: "name of a VIP", args: []string{"reverse", vip}, want: "web.collabnet.mesh.internal"},
		{name: "name of a task", args: []string{"reverse", "10.1.9.1"}, want: "dual.1.dual1.collabnet.mesh.internal"},
		{name: "name of a free address of the pool", args: []string{"reverse", "10.96.255.253"}, want: "notfound"},
		{name: "SRV", args: []string{"srv", "_http._tcp.dual.collabnet"}, want: "8080"},
		{name: "SRV of a port that is not there", args: []string{"srv", "_nope._tcp.dual.collabnet"}, want: "notfound"},
		{name: "search a network", conf: "search collabnet.mesh.internal\n", args: lookup("dual"), want: "10.1.9.1 fd21::9:1"},
		{name: "search, the suffix of others first", conf: "search corp.example collabnet.mesh.internal\n", args: lookup("tasks.web"), want: both},
		{name: "search with ndots:5", conf: "search corp.example collabnet.mesh.internal\noptions ndots:5\n", args: lookup("web.collabnet"), want: vip},
		{name: "ndots:0", conf: "search corp.example\noptions ndots:0\n", args: lookup("web"), want: vip},
		{
			name: "search, a suffix is refused", conf: "search refused.example collabnet.mesh.internal\noptions ndots:2\n",
			args: lookup("tasks.web"), want: both,
			limits: map[string]limit{
				"musl": {want: "again", why: muslServ, within: 11 * time.Second}, "c-ares": {want: "again", why: caresNX},
			},
		},
	}
}

// faultCases are names of others behind an upstream that does what the first
// label says.
func faultCases() []example {
	fault := func(name string) []string { return lookup(name + ".fault.example") }
	return []example{
		{name: "upstream works, AAAA is NODATA", args: fault("ok"), want: upstream1},
		{name: "AAAA is NXDOMAIN", args: fault("aaaa-nxdomain"), want: upstream1, limits: map[string]limit{"musl": {want: "notfound", why: muslNX}}},
		{name: "AAAA is SERVFAIL", args: fault("aaaa-servfail"), want: upstream1, limits: again(muslServ)},
		{name: "AAAA is REFUSED", args: fault("aaaa-refused"), want: upstream1, limits: again(muslServ)},
		{name: "AAAA is NOTIMP", args: fault("aaaa-notimp"), want: upstream1, limits: again(muslServ)},
		{name: "AAAA is lost", args: fault("aaaa-drop"), want: upstream1, limits: again(muslServ)},
		{name: "FORMERR to EDNS", args: fault("edns-formerr"), want: upstream1},
		{name: "TC with a part, TCP works", args: fault("tc-partial"), want: "60 addresses", limits: part("29 addresses")},
		{name: "TC without answers, TCP works", args: fault("tc-empty"), want: "60 addresses", limits: part("29 addresses")},
		{name: "TC with a part, TCP closes", args: fault("tc-partial-closes"), want: "10 addresses"},
		{name: "neither AA nor RA", args: fault("lame"), want: upstream1},
		{name: "OPT nobody asked for", args: fault("opt"), want: upstream1},
		{
			name: "everything is lost", args: fault("drop"), want: "again",
			limits: map[string]limit{"musl": {want: "again", why: muslServ, within: 11 * time.Second}},
		},
		{name: "unknown name of others", args: lookup("nothing.example"), want: "notfound"},
	}
}

// TestClients asks every case with every client.
func TestClients(t *testing.T) {
	f := fleet.NewTest(t, 1)
	h := f.Rig.Hosts()[0]
	n := f.AddNode(h, []string{"--upstream", startUpstream(t, h).String()})
	must(t, n.Start(t.Context()))
	from, vip, tasks := populate(t, n)
	cases := append(meshCases(vip, tasks), faultCases()...)
	cs := prepared(t)
	results := newTable(cs, cases)
	t.Run("ask", func(t *testing.T) {
		for _, c := range cs {
			t.Run(c.name, func(t *testing.T) {
				if c.lacks != "" {
					t.Skip(c.lacks)
				}
				t.Parallel()
				for _, e := range cases {
					verdict, took := c.check(t, from, e)
					results.set(c, e, verdict, took)
				}
			})
		}
	})
	t.Log("\n" + results.String())
}

// populate makes the services of the cases and returns a task to ask from, the
// VIP of web, and the addresses of its tasks.
func populate(t *testing.T, n *fleet.Node) (from *fleet.Task, vip string, tasks []string) {
	t.Helper()
	_, err := n.Ctl("network", "create", "collabnet", "--subnet", "10.96.0.0/16")
	must(t, err)
	for i := range 2 {
		from, err = n.Run(t.Context(), fleet.Spec{
			Network: "collabnet", Service: "web", Slot: i + 1,
			ID: fmt.Sprintf("web%d", i+1),
		})
		must(t, err)
		tasks = append(tasks, from.Addr.String())
	}
	_, err = n.API.AddTask(t.Context(), control.AddTask{
		Network: "collabnet", Service: "dual", Slot: 1, ID: "dual1", IPs: []string{"10.1.9.1", "fd21::9:1"},
		Ports: []string{"http:8080/tcp"}, Aliases: []string{"www"}, Name: "dual-one",
		SetService: control.SetService{Mode: "dnsrr"},
	})
	must(t, err)
	for i := range 60 {
		_, err = n.API.AddTask(t.Context(), control.AddTask{
			Network: "collabnet", Service: "big", Slot: uint32(i + 1), ID: fmt.Sprintf("big%d", i+1),
			IPs: []string{netip.AddrFrom4([4]byte{10, 1, 10, byte(i + 1)}).String()}, Ports: []string{"80"},
		})
		must(t, err)
	}
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		r, err := n.API.Resolve(ctx, control.ResolveRequest{Network: "collabnet", Name: "web", Type: "A"})
		if err == nil && len(r.Answers) != 1 {
			err = fmt.Errorf("web is %v", r.Answers)
		}
		if err == nil {
			vip = r.Answers[0][strings.LastIndexByte(r.Answers[0], ' ')+1:]
		}
		return err
	})
	if !strings.HasPrefix(vip, "10.96.") {
		t.Fatalf("web is %s, not a VIP: no load balancer?", vip)
	}
	slices.Sort(tasks)
	return from, vip, tasks
}

// check asks one case and returns what to put into the table.
func (c *client) check(t *testing.T, from *fleet.Task, e example) (verdict string, took time.Duration) {
	t.Helper()
	if e.args[0] == "srv" && c.noSRV {
		return "-", 0
	}
	want, within := e.want, stall
	verdict = "ok"
	if l, is := e.limits[c.name]; is {
		want, verdict = l.want, "limit"
		within = max(within, l.within)
	}
	got := c.ask(t, from, "nameserver "+from.DNS().Addr().String()+"\n"+e.conf, e.args)
	if got.text != want || got.took > within {
		t.Errorf("%s, %s: %q after %v, want %q within %v", c.name, e.name, got.text, got.took, want, within)
		verdict = "FAIL"
	}
	return verdict, got.took
}

// grid is the table of cases and clients.
type grid struct {
	clients []*client
	cases   []example

	mu      sync.Mutex // guards what follows
	cells   map[string]string
	slowest map[string]slow // by client, limits left out
}

type slow struct {
	took time.Duration
	name string
}

func newTable(cs []*client, cases []example) *grid {
	return &grid{clients: cs, cases: cases, cells: map[string]string{}, slowest: map[string]slow{}}
}

func (g *grid) set(c *client, e example, verdict string, took time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cells[c.name+"/"+e.name] = verdict
	if verdict != "limit" && took >= g.slowest[c.name].took {
		g.slowest[c.name] = slow{took, e.name}
	}
}

// String prints the table and, below it, the reasons for what is a client's limit.
func (g *grid) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-36s", "case")
	for _, c := range g.clients {
		fmt.Fprintf(&b, " %-12s", c.name)
	}
	var notes []string
	for _, e := range g.cases {
		fmt.Fprintf(&b, "\n%-36s", e.name)
		for _, c := range g.clients {
			cell := g.cells[c.name+"/"+e.name]
			if c.lacks != "" {
				cell = "skipped"
			}
			fmt.Fprintf(&b, " %-12s", cell)
			if l, is := e.limits[c.name]; is {
				notes = append(notes, fmt.Sprintf("limit of %s, %s: gets %s; %s", c.name, e.name, l.want, l.why))
			}
		}
	}
	b.WriteString("\n\n- : the client has no call for it\n" + strings.Join(notes, "\n"))
	for _, c := range g.clients {
		if c.lacks != "" {
			b.WriteString("\nskipped: " + c.name + ": " + c.lacks)
			continue
		}
		fmt.Fprintf(&b, "\nslowest of %s: %v, %s", c.name, g.slowest[c.name].took, g.slowest[c.name].name)
	}
	return b.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
