package control

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"sync"
	"time"
)

// fake is a Backend that records each call and answers with made-up, full
// replies, or with err.
type fake struct {
	err    error
	delay  time.Duration
	panics bool
	events *EventLog

	entered chan struct{} // capacity 1: receives at a call

	mu    sync.Mutex // guards calls
	calls []string
}

func newFake() *fake {
	return &fake{events: NewEventLog("00000000000000b1", 8), entered: make(chan struct{}, 1)}
}

func (f *fake) record(ctx context.Context, name string, args any) error {
	b, _ := json.Marshal(args)
	f.mu.Lock()
	f.calls = append(f.calls, name+" "+string(b))
	f.mu.Unlock()
	select {
	case f.entered <- struct{}{}:
	default:
	}
	if f.panics {
		panic("test")
	}
	if f.delay > 0 {
		select {
		case <-time.After(f.delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return f.err
}

func (f *fake) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return ""
	}
	return f.calls[len(f.calls)-1]
}

var _ Backend = (*fake)(nil)

var (
	when    = time.Date(2026, 5, 4, 3, 2, 1, 123456789, time.UTC)
	ip4     = netip.MustParseAddr("10.9.0.2")
	pool4   = netip.MustParsePrefix("10.9.0.0/16")
	network = Network{Name: "collabnet", Subnet: pool4, Joined: true, Nodes: []string{"a"}, Services: 1, Tasks: 2}
	task    = Task{
		ID: "3f9c", Network: "collabnet", Service: "web", Slot: 3, TaskName: "web.3.3f9c", Aliases: []string{"www"},
		IPs: []netip.Addr{ip4}, Ports: []string{"http:80/tcp"}, Weight: 1, Health: "passing", State: "serving", Node: "a",
	}
	service = Service{
		Name: "web", Network: "collabnet", Mode: "vip", VIPs: []netip.Addr{ip4}, Ports: []string{},
		Scheduler: "rr", Tasks: TaskCount{Serving: 2},
	}
	container = Sandbox{
		ID: "x1", Name: "web-1", State: SandboxReady, Networks: []string{"collabnet"}, Netns: "/run/netns/web",
		Inode:     4026532000,
		Addresses: []netip.Addr{ip4}, DNS: "127.0.0.11:53", LBDriver: "nft", Service: "web", Task: "3f9c", Since: when,
		Problems: []string{},
	}
	keys = KeyReply{
		Keys:    []KeyCount{{ID: "1f2e3d4c5b6a", Nodes: 2, Primary: 2}},
		Results: []NodeResult{{Node: "a"}, {Node: "b", Error: "no answer"}}, OK: 1, Total: 2,
	}
)

func (f *fake) Version(ctx context.Context) (Version, error) {
	v := Version{Version: "v1", Go: "go1.26", OS: "linux/amd64", API: APIVersion, Node: "a"}
	return v, f.record(ctx, "Version", nil)
}

func (f *fake) Status(ctx context.Context) (Status, error) {
	return Status{
		Node: "a", BootID: "00000000000000b1", Started: when, DNS: []string{"127.0.0.1:53"},
		Networks: []NetworkStatus{{Network: "collabnet"}},
		LB:       []LBHealth{{Driver: "nft"}}, Degraded: []string{}, Conflicts: []string{"x"}, Warnings: []string{},
	}, f.record(ctx, "Status", nil)
}

func (f *fake) Nodes(ctx context.Context) ([]Node, error) {
	return []Node{{Name: "a", State: NodeAlive, Since: when, Networks: []string{"collabnet"}}}, f.record(ctx, "Nodes", nil)
}

func (f *fake) Join(ctx context.Context, req JoinRequest) (JoinReply, error) {
	return JoinReply{Results: []JoinResult{{Address: "192.0.2.1"}}, Members: 2}, f.record(ctx, "Join", req)
}

func (f *fake) Leave(ctx context.Context) (LeaveReply, error) {
	return LeaveReply{Informed: 2, Stopping: true}, f.record(ctx, "Leave", nil)
}

func (f *fake) Metrics(ctx context.Context, w io.Writer) error {
	_, _ = io.WriteString(w, "meshd_up 1\n")
	return f.record(ctx, "Metrics", nil)
}

func (f *fake) Diff(ctx context.Context, req DiffRequest) (Diff, error) {
	return Diff{Networks: []NetworkDiff{{
		Network: "collabnet", Differ: []string{"b"},
		Nodes: []NodeChecksum{{Node: "a", Checksum: "00"}},
	}}, Silent: []SilentNode{}}, f.record(ctx, "Diff", req)
}

func (f *fake) Spread(ctx context.Context, req SpreadRequest) (Spread, error) {
	return Spread{
		Network: "collabnet", Results: []NodeResult{{Node: "a"}, {Node: "b", Error: "no answer"}}, OK: 1,
		Total: 2,
	}, f.record(ctx, "Spread", req)
}

func (f *fake) Watch(ctx context.Context, req WatchRequest, emit func(Event) error) error {
	if err := f.record(ctx, "Watch", req); err != nil {
		return err
	}
	return f.events.Watch(ctx, req, emit)
}

func (f *fake) CreateNetwork(ctx context.Context, req CreateNetwork) (Network, error) {
	return network, f.record(ctx, "CreateNetwork", req)
}

func (f *fake) Networks(ctx context.Context) ([]Network, error) {
	return []Network{network}, f.record(ctx, "Networks", nil)
}

func (f *fake) Network(ctx context.Context, name string) (NetworkDetail, error) {
	return NetworkDetail{
		Network: network, Birth: 7, Streams: []Stream{{Owner: "a", Version: 9}}, ServiceList: []Service{service},
		Warnings: []string{},
	}, f.record(ctx, "Network", name)
}

func (f *fake) RemoveNetwork(ctx context.Context, name string) error {
	return f.record(ctx, "RemoveNetwork", name)
}

func (f *fake) AddTask(ctx context.Context, req AddTask) (TaskAdded, error) {
	return TaskAdded{Task: task, VIPs: []netip.Addr{ip4}, Mode: "vip", Warnings: []string{"w"}},
		f.record(ctx, "AddTask", req)
}

func (f *fake) RemoveTask(ctx context.Context, ref TaskRef) (Task, error) {
	return task, f.record(ctx, "RemoveTask", ref)
}

func (f *fake) DrainTask(ctx context.Context, ref TaskRef) (Task, error) {
	return task, f.record(ctx, "DrainTask", ref)
}

func (f *fake) Tasks(ctx context.Context, filter TaskFilter) ([]Task, error) {
	return []Task{task}, f.record(ctx, "Tasks", filter)
}

func (f *fake) Services(ctx context.Context, network string) ([]Service, error) {
	return []Service{service}, f.record(ctx, "Services", network)
}

func (f *fake) Service(ctx context.Context, ref ServiceRef) (ServiceDetail, error) {
	return ServiceDetail{
		Service: service, Claims: []Claim{{VIP: ip4, Node: "a", Wins: true}}, Names: []string{"web"}, TaskList: []Task{task},
		Warnings: []string{},
	}, f.record(ctx, "Service", ref)
}

func (f *fake) ServiceTasks(ctx context.Context, ref ServiceRef) ([]Task, error) {
	return []Task{task}, f.record(ctx, "ServiceTasks", ref)
}

func (f *fake) SetService(ctx context.Context, ref ServiceRef, req SetService) (Service, error) {
	return service, f.record(ctx, "SetService", [2]any{ref, req})
}

func (f *fake) Resolve(ctx context.Context, req ResolveRequest) (Resolution, error) {
	return Resolution{
		Name: "web", RCode: "NOERROR", Answers: []string{"10.9.0.2"},
		Steps: []Step{{Scope: "collabnet", Answer: []string{}}},
	}, f.record(ctx, "Resolve", req)
}

func (f *fake) Doctor(ctx context.Context) (Doctor, error) {
	one := HostFinding{Code: "hairpin", Severity: SeverityFault, What: "a port", Command: "bridge", Document: "OPERATIONS"}
	return Doctor{Node: "a", At: when, Findings: []HostFinding{one}}, f.record(ctx, "Doctor", nil)
}

func (f *fake) VerifyLB(ctx context.Context, req LBVerifyRequest) (LBVerifyReply, error) {
	d := LBDifference{Area: "rule", Kind: "missing", What: "rule 1", Repaired: true}
	return LBVerifyReply{Reports: []LBReport{{
		Driver: "nft", At: when, Result: LBDrift, Found: 1,
		Differences: []LBDifference{d},
	}}}, f.record(ctx, "VerifyLB", req)
}

func (f *fake) LB(ctx context.Context, req LBRequest) (LBTable, error) {
	b := LBBackend{
		Task: "3f9c", Address: netip.AddrPortFrom(ip4, 80), Desired: 1, Actual: -1, State: LBMissing,
		Counters: NoCounters(),
	}
	return LBTable{
		Driver: "nft", LastApply: when, LastVerify: LBReport{At: when, Differences: []LBDifference{}},
		Services: []LBService{{VIP: ip4, Port: "80/tcp", Backends: []LBBackend{b}}},
	}, f.record(ctx, "LB", req)
}

func (f *fake) AttachSandbox(ctx context.Context, req AttachSandbox) (SandboxAttached, error) {
	return SandboxAttached{Sandbox: container, Warnings: []string{"w"}}, f.record(ctx, "AttachSandbox", req)
}

func (f *fake) DetachSandbox(ctx context.Context, ref string) (SandboxDetached, error) {
	return SandboxDetached{Sandbox: container, Warnings: []string{}}, f.record(ctx, "DetachSandbox", ref)
}

func (f *fake) Sources(ctx context.Context) ([]SourceUnit, error) {
	return []SourceUnit{{
		Origin: "docker", Unit: "web-1", ID: "3f9c2a", State: UnitRefused, Tasks: 1, Since: time.Unix(1, 0).UTC(),
		Problems: []string{"label mesh.network is missing"},
	}}, f.record(ctx, "Sources", nil)
}

func (f *fake) Sandboxes(ctx context.Context) ([]Sandbox, error) {
	return []Sandbox{container}, f.record(ctx, "Sandboxes", nil)
}

func (f *fake) Sandbox(ctx context.Context, ref string) (SandboxDetail, error) {
	return SandboxDetail{
		Sandbox: container, Redirected: true, DNSPort: 40001,
		LB: LBTable{Driver: "nft", Services: []LBService{}},
	}, f.record(ctx, "Sandbox", ref)
}

func (f *fake) InstallKey(ctx context.Context, req KeyRequest) (KeyReply, error) {
	return keys, f.record(ctx, "InstallKey", req)
}

func (f *fake) UseKey(ctx context.Context, req KeyRequest) (KeyReply, error) {
	return keys, f.record(ctx, "UseKey", req)
}

func (f *fake) RemoveKey(ctx context.Context, req KeyRequest) (KeyReply, error) {
	return keys, f.record(ctx, "RemoveKey", req)
}

func (f *fake) Keys(ctx context.Context) (KeyReply, error) { return keys, f.record(ctx, "Keys", nil) }
