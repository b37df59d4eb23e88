package state

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"
)

// benchTable is a replica of owners with a hundred endpoints each, in services of a size.
type benchTable struct {
	owners  []*Table
	replica *Table
	size    int
	now     time.Duration
}

func newBenchTable(b *testing.B, owners, size int) *benchTable {
	clock := testClock(0)
	s := NewStore("self", 1, DefaultLimits(), &clock)
	t := &benchTable{size: size, replica: s.Join("net")}
	for o := range owners {
		name := NodeID(fmt.Sprintf("node-%05d", o))
		s.SetLiveness(name, Alive)
		t.owners = append(t.owners, NewStore(name, 1, DefaultLimits(), &clock).Join("net"))
		t.commit(b, o, 1, 0, 100)
		t.apply(b, o)
	}
	t.publish()
	return t
}

// commit restates some endpoints of an owner.
func (t *benchTable) commit(b *testing.B, o int, weight uint16, from, to int) {
	var cs []Change
	for i := from; i < to; i++ {
		n := o*100 + i
		service := (i*len(t.owners) + o) / t.size
		e := Endpoint{
			IP4:  netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}),
			IP6:  netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}),
			Slot: uint32(n + 1), Weight: weight, Aliases: []string{"www-" + strconv.Itoa(service)},
			Ports: []Port{{Name: "http", Number: 80, Proto: TCP}, {Number: 443, Proto: TCP}},
		}
		cs = append(cs, Change{
			Kind: KindEndpoint, Key: fmt.Sprintf("t%024x", uint64(n)*0x9e3779b97f4a7c15), Group: fmt.Sprint("service-", service),
			Body: string(AppendEndpoint(nil, &e)),
		})
	}
	if _, err := t.owners[o].Commit(cs); err != nil {
		b.Fatal(err)
	}
}

func (t *benchTable) apply(b *testing.B, o int) {
	owner := t.owners[o].self
	if r, err := t.replica.Apply(t.owners[o].Delta(t.replica.WantNext(owner), 1<<30)); r != Applied {
		b.Fatal(r, err)
	}
}

func (t *benchTable) publish() {
	t.now += time.Second
	t.replica.Publish(t.now)
}

// BenchmarkReplace restates all endpoints of all owners, and publishes after each
// eight owners.
func BenchmarkReplace(b *testing.B) {
	for _, size := range []int{100, 5000} {
		b.Run(fmt.Sprint("service=", size), func(b *testing.B) {
			t := newBenchTable(b, 100, size)
			weight := uint16(1)
			for b.Loop() {
				weight = weight%60000 + 1
				for o := range t.owners {
					t.commit(b, o, weight+1, 0, 100)
					if t.apply(b, o); o%8 == 7 {
						t.publish()
					}
				}
				t.publish()
			}
		})
	}
}

// BenchmarkChange changes one endpoint and publishes it.
func BenchmarkChange(b *testing.B) {
	for _, size := range []int{100, 5000} {
		b.Run(fmt.Sprint("service=", size), func(b *testing.B) {
			t := newBenchTable(b, 100, size)
			for i := 0; b.Loop(); i++ {
				t.commit(b, i%100, uint16(i/100%60000+2), i%100, i%100+1)
				t.apply(b, i%100)
				t.publish()
			}
		})
	}
}

// BenchmarkLiveness hides an owner's endpoints and shows them again.
func BenchmarkLiveness(b *testing.B) {
	t := newBenchTable(b, 100, 100)
	for i := 0; b.Loop(); i++ {
		for _, l := range []Liveness{Dead, Alive} {
			t.replica.SetLiveness(t.owners[i%100].self, l)
			t.publish()
		}
	}
}

// BenchmarkDelta builds the delta of all of an owner's endpoints.
func BenchmarkDelta(b *testing.B) {
	t := newBenchTable(b, 1, 100)
	for b.Loop() {
		if d := t.owners[0].Delta(Want{Owner: t.owners[0].self}, 1<<30); len(d.Records) != 100 {
			b.Fatal(len(d.Records))
		}
	}
}
