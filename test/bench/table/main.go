// Command table measures the replicated table: memory per endpoint, deltas
// applied per second, one change until it is visible, and the lookup of hot
// names (docs/BENCHMARKS.md). One line per size of the table and of its services.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meshd/state"
)

type clock uint64

func (c *clock) Tick() uint64     { *c++; return uint64(*c) }
func (c *clock) Time() uint64     { return uint64(*c) }
func (c *clock) Witness(t uint64) { *c = max(*c, clock(t)) }

// bench is one run: a replica of the streams of many owners.
type bench struct {
	endpoints, size int
	store           *state.Store
	table           *state.Table
	owners          map[int]*state.Table // the writers' side
	now             time.Duration
}

// perOwner is how many endpoints an owner has, hot how many owners change theirs.
const (
	perOwner = 100
	hot      = 500
)

func main() {
	counts := flag.String("endpoints", "100000,1000000", "sizes of the table")
	sizes := flag.String("services", "10,1000,10000", "endpoints per service")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the whole run to this file")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	for _, n := range numbers(*counts) {
		for _, size := range numbers(*sizes) {
			run(n, size)
		}
	}
}

func numbers(list string) (ns []int) {
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "%q is not a number of endpoints\n", s)
			os.Exit(2)
		}
		ns = append(ns, n)
	}
	return ns
}

func run(endpoints, size int) {
	before := heap()
	b := &bench{endpoints: endpoints, size: size, owners: map[int]*state.Table{}}
	b.store = state.NewStore("self", 1, state.DefaultLimits(), new(clock))
	for o := range endpoints / perOwner {
		b.store.SetLiveness(name(o), state.Alive)
	}
	b.table = b.store.Join("net")
	load := b.load()
	clear(b.owners) // the writers' side is no part of the replica; it says the same again
	used := heap() - before
	update := b.update()
	change := b.change()
	lookup := testing.Benchmark(b.lookup)
	fmt.Printf("table endpoints=%d service_size=%d heap_bytes_per_endpoint=%d load_per_s=%.0f apply_per_s=%.0f "+
		"change_us=%.1f lookup_ns=%d lookup_allocs=%d\n",
		endpoints, size, used/uint64(endpoints), load, update, change, lookup.NsPerOp(), lookup.AllocsPerOp())
	runtime.KeepAlive(b)
}

// heap returns the bytes in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func name(i int) state.NodeID { return state.NodeID(fmt.Sprintf("node-%05d", i)) }

func service(i int) string { return fmt.Sprintf("service-%06d", i) }

// record is the i-th endpoint: a 25-character id, both addresses, two ports, an
// alias; neighbours in a service belong to different owners.
func (b *bench) record(i int, weight uint16) state.Change {
	owners := b.endpoints / perOwner
	s := (i%perOwner*owners + i/perOwner) / b.size
	e := state.Endpoint{
		IP4:  netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}),
		IP6:  netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}),
		Slot: uint32(i%b.size + 1), Weight: weight, Aliases: []string{"www-" + strconv.Itoa(s)},
		Ports: []state.Port{{Name: "http", Number: 80, Proto: state.TCP}, {Number: 443, Proto: state.TCP}},
	}
	return state.Change{
		Kind: state.KindEndpoint, Key: fmt.Sprintf("t%024x", uint64(i)*0x9e3779b97f4a7c15), Group: service(s),
		Body: string(state.AppendEndpoint(nil, &e)),
	}
}

// apply applies deltas, publishes after each eight of them, as a node does that
// is busy, and returns the records per second.
func (b *bench) apply(deltas []*state.Delta) float64 {
	n := 0
	start := time.Now()
	for i, d := range deltas {
		if r, err := b.store.Apply(d); r != state.Applied {
			fmt.Fprintln(os.Stderr, "delta of", d.Owner, "not applied:", r, err)
			os.Exit(1)
		}
		n += len(d.Records)
		if i%8 == 7 || i == len(deltas)-1 {
			b.publish()
		}
	}
	return float64(n) / time.Since(start).Seconds()
}

func (b *bench) publish() {
	b.now += 10 * time.Millisecond
	b.store.Publish(b.now)
}

// owner returns the table of an owner that has said what it says at first.
func (b *bench) owner(o int) *state.Table {
	if b.owners[o] == nil {
		b.owners[o] = state.NewStore(name(o), 1, state.DefaultLimits(), new(clock)).Join("net")
		b.commit(o, 1, perOwner)
	}
	return b.owners[o]
}

// commit restates n endpoints of an owner.
func (b *bench) commit(o int, weight uint16, n int) {
	var cs []state.Change
	from := 0
	if n < perOwner {
		from = rand.IntN(perOwner)
	}
	for i := range n {
		cs = append(cs, b.record(o*perOwner+(from+i)%perOwner, weight))
	}
	if _, err := b.owner(o).Commit(cs); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// delta is what an owner pushes to the replica.
func (b *bench) delta(o int) *state.Delta {
	return b.owner(o).Delta(b.table.WantNext(name(o)), 1<<30)
}

// load takes the first snapshot of every owner.
func (b *bench) load() float64 {
	var rate []float64
	n := b.endpoints / perOwner
	for from := 0; from < n; from += 500 {
		var ds []*state.Delta
		for o := from; o < min(from+500, n); o++ {
			ds = append(ds, b.delta(o))
			if o >= hot {
				delete(b.owners, o)
			}
		}
		rate = append(rate, b.apply(ds))
	}
	b.now += time.Second
	b.publish()
	return median(rate)
}

// update changes a hundred endpoints of one owner per delta.
func (b *bench) update() float64 {
	var rate []float64
	for round := range 9 {
		var ds []*state.Delta
		for o := range hot {
			b.commit(o, uint16(round+2), perOwner)
			ds = append(ds, b.delta(o))
		}
		rate = append(rate, b.apply(ds))
	}
	return median(rate)
}

// change applies one record and publishes it: microseconds until it is visible.
func (b *bench) change() float64 {
	var took []float64
	for i := range 3000 {
		o := rand.IntN(hot)
		b.commit(o, uint16(100+i), 1)
		d := b.delta(o)
		b.now += time.Second // so that no service is held back
		start := time.Now()
		r, err := b.store.Apply(d)
		b.store.Publish(b.now)
		took = append(took, float64(time.Since(start).Nanoseconds())/1e3)
		if r != state.Applied {
			fmt.Fprintln(os.Stderr, r, err)
			os.Exit(1)
		}
	}
	return median(took)
}

// lookup resolves 500 hot names.
func (b *bench) lookup(tb *testing.B) {
	names := make([]string, 500)
	for i := range names {
		names[i] = service(i % max(b.endpoints/b.size, 1))
	}
	v := b.table.View()
	tb.ReportAllocs()
	for i := 0; tb.Loop(); i++ {
		if m := v.Lookup(names[i%len(names)]); m.Kind != state.MatchService {
			tb.Fatal("no service")
		}
	}
}

func median(xs []float64) float64 {
	slices.Sort(xs)
	return xs[len(xs)/2]
}
