package main

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"time"

	"meshd/mesh/control"
)

var when = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

// node is a Backend of canned replies. It is not safe for concurrent calls
// but for its events.
type node struct {
	control.Backend // nil: a method that is not faked panics
	err             error
	events          *control.EventLog
	asked           int              // calls
	added           string           // the last AddTask, as JSON
	equalAfter      int              // the Diff from which on all is equal; 0: never
	wellAfter       int              // the call from which on Status is well; 0: never
	spreads         []control.Spread // answers of Spread, the last for ever
	spread          int              // calls of it
	lonely          bool             // Join is answered by the node itself alone
}

func newNode() *node { return &node{events: control.NewEventLog("00000000000000b1", 100)} }

func (n *node) call() error {
	n.asked++
	return n.err
}

func (n *node) tasks() []control.Task {
	a := control.Task{
		ID: "3f9c", Network: "collabnet", Service: "web", Slot: 3, TaskName: "web.3.3f9c",
		IPs:   []netip.Addr{netip.MustParseAddr("10.1.0.7"), netip.MustParseAddr("fd00::7")},
		Ports: []string{"http:80/tcp"}, Weight: 1, Health: "passing", State: "serving", Node: "a",
	}
	b := a
	b.ID, b.Slot, b.TaskName, b.IPs, b.Ports, b.Weight, b.State, b.Node = "3f9d", 0, "web.3f9d", a.IPs[:1], nil, 100,
		"suspect", "long-node-name"
	return []control.Task{a, b}
}

func (n *node) service() control.Service {
	return control.Service{
		Name: "web", Network: "collabnet", Mode: "vip", VIPs: []netip.Addr{netip.MustParseAddr("10.9.0.2")},
		Ports:     []string{"http:80/tcp"},
		Scheduler: "wrr", Drain: 10000, Tasks: control.TaskCount{Serving: 1, Suspect: 1},
		Degraded: "no load balancer on this node",
	}
}

func (n *node) Version(context.Context) (control.Version, error) {
	return control.Version{Version: "v1.2.3", Commit: "0123456789abcdef", Go: "go1.26", OS: "linux/amd64", API: 1},
		n.call()
}

func (n *node) Nodes(context.Context) ([]control.Node, error) {
	return []control.Node{
		{Name: "a", Address: "192.0.2.1:7946", State: "alive", Since: when, Self: true, LBDriver: "ipvs", Networks: []string{"collabnet", "other"}, Version: "v1.2.3"},
		{Name: "long-node-name", Address: "[2001:db8::1]:7946", State: "dead", Since: when.Add(-50 * time.Hour)},
	}, n.call()
}

func (n *node) Status(context.Context) (control.Status, error) {
	if err := n.call(); n.wellAfter > 0 && n.asked >= n.wellAfter {
		return control.Status{Node: "a", Networks: []control.NetworkStatus{{Synced: true}}}, err
	}
	return control.Status{
		Node: "a", BootID: "b0071d", Incarnation: 4, Version: "v1.2.3", Started: when, Bind: "192.0.2.1:7946",
		DNS:    []string{"127.0.0.1:53", "192.0.2.1:53"},
		Domain: "mesh.internal.", DataDir: "/var/lib/meshd", Encrypted: true, Members: control.MemberCount{Alive: 2, Dead: 1},
		Networks: []control.NetworkStatus{
			{Network: "", Synced: true, Checksum: "00000000000000aa"},
			{Network: "collabnet", Checksum: "00000000000000bb", Services: 2, Tasks: 5},
		},
		Tables:     control.TableUsage{Records: 12, MaxRecords: 111848, Bytes: 3 << 19, MaxBytes: 32 << 20},
		LocalTasks: 2, LBDriver: "nft", LBWhy: "the kernel has no IPVS", EventIndex: 4711,
		LB: []control.LBHealth{
			{Driver: "nft", InSync: true, Services: 3, Desired: 3, Draining: 1, LastVerify: when.Add(2 * time.Minute), LastResult: control.LBInSync},
			{Sandbox: "web-1", Driver: "none", Why: "no CAP_NET_ADMIN"},
		},
		Degraded: []string{"1 of 3 members is dead"}, Conflicts: []string{"alias www: web and shop"}, Preserving: true,
		Quarantined: 1,
	}, n.err
}

func (n *node) Join(_ context.Context, req control.JoinRequest) (control.JoinReply, error) {
	if n.lonely {
		r := control.JoinReply{Members: 1, Results: []control.JoinResult{{Address: req.Addresses[0]}}}
		for _, a := range req.Addresses[1:] {
			r.Results = append(r.Results, control.JoinResult{Address: a, Error: "connection refused"})
		}
		return r, n.call()
	}
	return control.JoinReply{Results: []control.JoinResult{
		{Address: "192.0.2.1:7946"},
		{Address: "192.0.2.2", Error: "connection refused"},
	}, Members: 2}, n.call()
}

func (n *node) Leave(context.Context) (control.LeaveReply, error) {
	return control.LeaveReply{Informed: 2, Stopping: true}, n.call()
}

func (n *node) Metrics(_ context.Context, w io.Writer) error {
	_, _ = io.WriteString(w, "meshd_up 1\n")
	return n.call()
}

func (n *node) Diff(context.Context, control.DiffRequest) (control.Diff, error) {
	err := n.call()
	sums := []control.NodeChecksum{
		{Node: "a", Checksum: "00000000000000bb", Entries: 5},
		{Node: "b", Checksum: "00000000000000bb", Entries: 5},
		{Node: "c", Checksum: "00000000000000cc", Entries: 4},
	}
	d := control.Diff{Networks: []control.NetworkDiff{
		{Nodes: []control.NodeChecksum{{Node: "a", Checksum: "01"}}},
		{Network: "collabnet", Nodes: sums},
	}}
	if n.equalAfter > 0 {
		if n.asked >= n.equalAfter {
			sums[2] = control.NodeChecksum{Node: "c", Checksum: sums[0].Checksum, Entries: 5}
		}
	} else {
		d.Silent = []control.SilentNode{{Node: "d", Error: "no answer within 1s"}}
	}
	d.Compare()
	return d, err
}

func (n *node) Spread(context.Context, control.SpreadRequest) (control.Spread, error) {
	n.spread++
	if len(n.spreads) == 0 {
		return control.Spread{Results: []control.NodeResult{}}, n.err
	}
	return n.spreads[min(n.spread, len(n.spreads))-1], n.err
}

func (n *node) Watch(ctx context.Context, req control.WatchRequest, emit func(control.Event) error) error {
	if n.err != nil {
		return n.err
	}
	return n.events.Watch(ctx, req, emit)
}

func (n *node) network() control.Network {
	return control.Network{
		Name: "collabnet", Subnet: netip.MustParsePrefix("10.9.0.0/16"), Joined: true,
		Nodes: []string{"a", "b"}, Services: 1, Tasks: 2,
	}
}

func (n *node) CreateNetwork(context.Context, control.CreateNetwork) (control.Network, error) {
	return n.network(), n.call()
}

func (n *node) Networks(context.Context) ([]control.Network, error) {
	six := control.Network{
		Name: "six", Subnet6: netip.MustParsePrefix("fd00:9::/64"), Nodes: []string{"b"},
		Conflict: "b says fd00:8::/64",
	}
	return []control.Network{n.network(), six}, n.call()
}

func (n *node) Network(context.Context, string) (control.NetworkDetail, error) {
	return control.NetworkDetail{
		Network: n.network(), Birth: 12, Synced: true, Checksum: "00000000000000bb", VIPsUsed: 1, VIPsFree: 65533,
		Streams:     []control.Stream{{Owner: "a", Incarnation: 4, Version: 9, Floor: 2, Entries: 3, State: "alive"}},
		ServiceList: []control.Service{n.service()}, Warnings: []string{"w"},
	}, n.call()
}

func (n *node) RemoveNetwork(context.Context, string) error { return n.call() }

func (n *node) AddTask(_ context.Context, req control.AddTask) (control.TaskAdded, error) {
	b, err := json.Marshal(req)
	n.added = string(b)
	if err != nil {
		return control.TaskAdded{}, err
	}
	return control.TaskAdded{
		Task: n.tasks()[0], VIPs: n.service().VIPs, Mode: "dnsrr",
		Warnings: []string{"the pool 10.9.0.0/30 is exhausted: web is answered like dnsrr"},
	}, n.call()
}

func (n *node) RemoveTask(_ context.Context, ref control.TaskRef) (control.Task, error) {
	if ref.ID == "gone" {
		return control.Task{}, control.Refuse(control.CodeNotFound, `"meshctl task ls" lists the tasks of this node`,
			"no task gone")
	}
	return n.tasks()[0], n.call()
}

func (n *node) DrainTask(context.Context, control.TaskRef) (control.Task, error) {
	return n.tasks()[0], n.call()
}

func (n *node) Tasks(context.Context, control.TaskFilter) ([]control.Task, error) {
	return n.tasks(), n.call()
}

func (n *node) Services(context.Context, string) ([]control.Service, error) {
	return []control.Service{n.service()}, n.call()
}

func (n *node) Service(context.Context, control.ServiceRef) (control.ServiceDetail, error) {
	claims := []control.Claim{
		{VIP: n.service().VIPs[0], Node: "a", Birth: 7, Pinned: true, Wins: true},
		{VIP: n.service().VIPs[0], Node: "b", Birth: 5},
	}
	return control.ServiceDetail{
		Service: n.service(), Claims: claims, Names: []string{"web", "tasks.web", "www"},
		TaskList: n.tasks(),
	}, n.call()
}

func (n *node) ServiceTasks(context.Context, control.ServiceRef) ([]control.Task, error) {
	return n.tasks(), n.call()
}

func (n *node) SetService(ctx context.Context, _ control.ServiceRef, _ control.SetService) (control.Service, error) {
	all, err := n.Services(ctx, "")
	if err != nil {
		return control.Service{}, err
	}
	return all[0], nil
}

func (n *node) Resolve(_ context.Context, req control.ResolveRequest) (control.Resolution, error) {
	r := control.Resolution{
		Name: "web", Network: "collabnet", Type: "A", RCode: "NOERROR", TTL: 2, Answers: []string{"10.9.0.2"},
		Steps: []control.Step{
			{Scope: "collabnet", Rule: "task name", Why: "no task is called web"},
			{Scope: "collabnet", Rule: "service", Answer: []string{"10.9.0.2"}, Why: "vip mode"},
		},
	}
	if req.Trace {
		r.Steps = append(r.Steps, control.Step{Scope: "collabnet", Rule: "path", Why: "the fast path"})
	}
	return r, n.call()
}

func (n *node) LB(_ context.Context, req control.LBRequest) (control.LBTable, error) {
	vip := n.service().VIPs[0]
	backends := []control.LBBackend{
		{Task: "3f9c", TaskName: "web.1.3f9c", Node: "a", Address: netip.MustParseAddrPort("10.1.0.7:80"), Desired: 1, Actual: 1, State: control.LBOK, Counters: control.Counters{Active: 2, Connections: 30, PacketsIn: 4, PacketsOut: 5, BytesIn: 6, BytesOut: 7}},
		{Node: "b", Address: netip.MustParseAddrPort("10.1.0.8:0"), Desired: -1, Actual: 1, State: control.LBExtra, Counters: control.NoCounters()},
		{Task: "77", Node: "b", Address: netip.MustParseAddrPort("10.1.0.9:80"), Desired: -1, State: control.LBDraining, Until: when.Add(3*time.Minute + 20*time.Second), Counters: control.NoCounters()},
	}
	return control.LBTable{
		Sandbox: req.Sandbox, Driver: "nft", Why: "the kernel has no IPVS", LastApply: when, LastError: "busy", Pending: 1,
		Draining:   1,
		LastVerify: control.LBReport{At: when.Add(time.Minute), Result: control.LBDrift, Found: 3, Repaired: 2},
		Services: []control.LBService{
			{Network: "collabnet", Service: "web", VIP: vip, Port: "80/tcp", Scheduler: "rr", RunsAs: "wrr", State: control.LBDiffers, Error: "busy", Counters: control.NoCounters(), Backends: backends},
		},
	}, n.call()
}

func (n *node) Doctor(context.Context) (control.Doctor, error) {
	found := []control.HostFinding{
		{Code: "firewall-forward", Severity: control.SeverityFault, What: "the policy of chain FORWARD is drop", Command: "iptables -I FORWARD -j ACCEPT", Document: "OPERATIONS: Firewalls"},
		{Code: "address", Severity: control.SeverityWarning, What: "other nodes are to dial 192.0.2.1\x1b[31m", Document: "OPERATIONS: When the host is against it"},
	}
	return control.Doctor{Node: "a", At: when, Findings: found}, n.call()
}

func (n *node) VerifyLB(_ context.Context, req control.LBVerifyRequest) (control.LBVerifyReply, error) {
	host := control.LBReport{
		Driver: "ipvs", At: when, TookMillis: 1.234, Result: control.LBDrift, Full: true, Services: 3, Backends: 7, Found: 3,
		Repaired: 1,
		Differences: []control.LBDifference{
			{Area: "rule", Kind: "missing", What: "rule 2 of chain guard of nftables table ip meshd", Repaired: !req.ReportOnly},
			{Area: "backend", Kind: "changed", What: "backend 10.1.0.7:80 of service 10.9.0.2:80/tcp", Found: "weight 7", Want: "weight 1", Outcome: "busy"},
		},
	}
	box := control.LBReport{
		Sandbox: "web-1", Driver: "nft", At: when, TookMillis: 0.5, Result: control.LBInSync,
		Full: true, Services: 1,
	}
	if req.Sandbox != "" {
		return control.LBVerifyReply{InSync: true, Reports: []control.LBReport{box}}, n.call()
	}
	return control.LBVerifyReply{Reports: []control.LBReport{host, box}}, n.call()
}

func (n *node) keys() control.KeyReply {
	return control.KeyReply{
		Keys:    []control.KeyCount{{ID: "1f2e3d4c5b6a", Nodes: 3, Primary: 3}, {ID: "aabbccddeeff", Nodes: 2}},
		Results: []control.NodeResult{{Node: "a"}, {Node: "b"}, {Node: "c", Error: "no answer within 5s"}}, OK: 2, Total: 3,
	}
}

func (n *node) InstallKey(context.Context, control.KeyRequest) (control.KeyReply, error) {
	return n.keys(), n.call()
}

func (n *node) UseKey(context.Context, control.KeyRequest) (control.KeyReply, error) {
	r := n.keys()
	r.Results, r.OK = append(r.Results[:2], control.NodeResult{Node: "c"}), 3
	return r, n.call()
}

func (n *node) Keys(context.Context) (control.KeyReply, error) { return n.keys(), n.call() }
