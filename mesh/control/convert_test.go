package control

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/state"
)

func TestFromService(t *testing.T) {
	got := FromService(&state.Service{
		Network: "n", Name: "web", VIP4: ip4, Ports: []state.Port{{Name: "http", Number: 80, Proto: state.TCP}},
		Settings: state.Settings{Mode: state.ModeDNSRR, Affinity: time.Second}, Count: [state.Hidden]int32{1, 2, 5, 3, 4},
	})
	want := Service{
		Name: "web", Network: "n", Mode: "dnsrr", VIPs: []netip.Addr{ip4}, Ports: []string{"http:80/tcp"}, Scheduler: "wrr",
		Affinity: 1000, Tasks: TaskCount{Serving: 1, Suspect: 2, Failing: 5, Draining: 3, Unready: 4},
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestFromEndpoint(t *testing.T) {
	got := FromEndpoint("n", state.Endpoint{
		ID: "x", Service: "web", Slot: 2, IP6: netip.MustParseAddr("fd00::1"),
		Owner: "a", Health: state.HealthFailing,
	}, state.Failing)
	if got.TaskName != "web.2.x" || got.State != "failing" || got.Health != "failing" || got.Weight != 1 ||
		got.Node != "a" || len(got.IPs) != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestSortTasks(t *testing.T) {
	tasks := []Task{
		{Network: "b"},
		{Network: "a", Service: "y"},
		{Network: "a", Service: "x", Slot: 10},
		{Network: "a", Service: "x", Slot: 9, ID: "q"},
		{Network: "a", Service: "x", Slot: 9, ID: "p"},
	}
	SortTasks(tasks)
	if tasks[0].ID != "p" || tasks[1].ID != "q" || tasks[2].Slot != 10 || tasks[3].Service != "y" ||
		tasks[4].Network != "b" {
		t.Errorf("got %+v", tasks)
	}
}

func TestDiffCompare(t *testing.T) {
	sums := func(pairs ...string) (all []NodeChecksum) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, NodeChecksum{Node: pairs[i], Checksum: pairs[i+1]})
		}
		return all
	}
	for _, tt := range []struct {
		nodes  []NodeChecksum
		silent []SilentNode
		equal  bool
		differ []string
	}{
		{nil, nil, true, nil},
		{sums("a", "1"), nil, true, nil},
		{sums("c", "1", "a", "2", "b", "2"), nil, false, []string{"c"}},
		{sums("b", "2", "a", "1"), nil, false, []string{"b"}},
		{sums("a", "1", "b", "2", "c", "2", "d", "3"), nil, false, []string{"a", "d"}},
		{sums("a", "1", "b", "1"), []SilentNode{{Node: "c"}}, false, nil},
	} {
		d := Diff{Networks: []NetworkDiff{{Nodes: tt.nodes}}, Silent: tt.silent}
		d.Compare()
		if d.Equal != tt.equal || !slices.Equal(d.Networks[0].Differ, tt.differ) {
			t.Errorf("%+v silent %v: got equal=%v differ=%v, want %v %v", tt.nodes, tt.silent, d.Equal, d.Networks[0].Differ,
				tt.equal, tt.differ)
		}
	}
}
