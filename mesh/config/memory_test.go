package config

import (
	"math"
	"testing"
	"testing/fstest"
)

// TestHostMemory: S19. What a process may use is the least that anything says:
// the machine, a control group of either version or one above it, GOMEMLIMIT.
func TestHostMemory(t *testing.T) {
	const none = math.MaxInt64
	for name, c := range map[string]struct {
		files map[string]string
		limit int64
		want  int
	}{
		"nothing tells":         {nil, none, 0},
		"the machine":           {map[string]string{"proc/meminfo": "MemTotal:        8388608 kB\nMemFree: 1 kB\n"}, none, 8 << 30},
		"GOMEMLIMIT":            {map[string]string{"proc/meminfo": "MemTotal:        8388608 kB\n"}, 1 << 30, 1 << 30},
		"more than the machine": {map[string]string{"proc/meminfo": "MemTotal:        1024 kB\n"}, 1 << 30, 1 << 20},
		"a control group":       {map[string]string{"proc/meminfo": "MemTotal:        8388608 kB\n", "proc/self/cgroup": "0::/system.slice/meshd.service\n", "sys/fs/cgroup/system.slice/meshd.service/memory.max": "536870912\n"}, none, 512 << 20},
		"the one above it": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n",
			"sys/fs/cgroup/a/memory.max": "268435456\n",
		}, none, 256 << 20},
		"version 1": {map[string]string{
			"proc/self/cgroup": "5:cpu:/x\n7:hugetlb,memory:/docker/1\n",
			"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "134217728\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          "9223372036854771712\n",
		}, none, 128 << 20},
		"what is unreadable": {map[string]string{"proc/meminfo": "MemTotal: x kB\n", "proc/self/cgroup": "x\n\n1:2\n0::\n", "sys/fs/cgroup/memory.max": "many"}, none, 0},
	} {
		root := fstest.MapFS{}
		for path, text := range c.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := hostMemory(root, c.limit); got != c.want {
			t.Errorf("%s: %d bytes, not %d", name, got, c.want)
		}
	}
}

// TestTableMemory: S19. The tables get a quarter, and what a person says.
func TestTableMemory(t *testing.T) {
	for memory, want := range map[int]int{0: 1 << 30, 1 << 30: 256 << 20, 64 << 30: 4 << 30} {
		if got := defaultTableMemory(memory); got != want {
			t.Errorf("of %d bytes, %d", memory, got)
		}
	}
	s := &Settings{}
	s.TableMemory = 1 << 30
	if l := s.Limits(); l.StoreBytes != 512<<20 || l.TableBytes != 256<<20 || l.StoreRecords != (512<<20)/300 ||
		l.StageBytes != 128<<20 {
		t.Errorf("%+v", l)
	}
}
