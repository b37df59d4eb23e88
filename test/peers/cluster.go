package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/hashicorp/memberlist"
	"github.com/moby/moby/v2/daemon/libnetwork/networkdb"
)

const (
	network = "net"
	table   = "endpoint_table"
)

// cluster is a set of NetworkDBs that know each other and have joined one
// network.
type cluster struct {
	t    *testing.T
	wire *wire
	rng  *rand.Rand
	dbs  []*networkdb.NetworkDB

	mu      sync.Mutex // guards everything that follows
	pending map[string]*waiting
}

// waiting is a change that is not visible everywhere yet.
type waiting struct {
	since  time.Time
	left   int
	missed []bool // by node: still to see it
	times  *[]time.Duration
}

// setTransport injects the transport. The field is not exported, because only
// NetworkDB's own tests use it.
func setTransport(c *networkdb.Config, t memberlist.Transport) {
	f := reflect.ValueOf(c).Elem().FieldByName("transport")
	reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem().Set(reflect.ValueOf(t))
}

// newCluster starts nodes at random moments of a second, so that their tickers
// are out of step, joins them, and lets them rest.
func newCluster(t *testing.T, nodes int, loss float64, seed uint64) *cluster {
	c := &cluster{t: t, rng: rand.New(rand.NewPCG(seed, 0)), pending: map[string]*waiting{}}
	c.wire = &wire{rng: rand.New(rand.NewPCG(seed, 1)), nodes: map[string]*transport{}}
	var seeds []string
	for i := range nodes {
		time.Sleep(time.Duration(c.rng.IntN(1000)) * time.Millisecond)
		tr := c.wire.newTransport(i + 1)
		conf := networkdb.DefaultConfig()
		conf.NodeID, conf.Hostname = fmt.Sprintf("node%08d", i), fmt.Sprintf("host%d", i)
		conf.BindAddr, conf.AdvertiseAddr, conf.BindPort = tr.addr.IP.String(), tr.addr.IP.String(), tr.addr.Port
		setTransport(conf, tr)
		db, err := networkdb.New(conf)
		if err == nil && i > 0 {
			err = db.Join(seeds)
		}
		if err == nil {
			err = db.JoinNetwork(network)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.dbs, seeds = append(c.dbs, db), append(seeds, tr.addr.String())
	}
	t.Cleanup(func() {
		for _, db := range c.dbs {
			db.Close()
		}
		time.Sleep(2 * time.Minute) // virtual; longer than any wait of theirs
	})
	c.rest()
	c.wire.set(loss, nil)
	for i := range c.dbs {
		c.watch(i)
	}
	return c
}

// rest waits until every node knows all others in the network, and two
// minutes more.
func (c *cluster) rest() {
	for _, db := range c.dbs {
		for len(db.Peers(network)) != len(c.dbs) {
			time.Sleep(time.Second)
		}
	}
	time.Sleep(2 * time.Minute)
}

// watch records what becomes visible at a node, by its public event stream.
func (c *cluster) watch(i int) {
	ch, cancel := c.dbs[i].Watch(table, network)
	c.t.Cleanup(cancel)
	go func() {
		for {
			select {
			case ev := <-ch.C:
				e := ev.(networkdb.WatchEvent)
				c.seen(i, change(e.Key, e.IsDelete()))
			case <-ch.Done():
				return
			}
		}
	}()
}

// change names a change of a key.
func change(key string, remove bool) string {
	if remove {
		return "-" + key
	}
	return "+" + key
}

func (c *cluster) seen(node int, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.pending[what]
	if w == nil || !w.missed[node] {
		return
	}
	w.missed[node] = false
	*w.times = append(*w.times, time.Since(w.since))
	if w.left--; w.left == 0 {
		delete(c.pending, what)
	}
}

// do makes a change at a node and expects it at all others.
func (c *cluster) do(node int, key string, remove bool, times *[]time.Duration) {
	w := &waiting{since: time.Now(), left: len(c.dbs) - 1, missed: make([]bool, len(c.dbs)), times: times}
	for i := range w.missed {
		w.missed[i] = i != node
	}
	c.mu.Lock()
	c.pending[change(key, remove)] = w
	c.mu.Unlock()
	var err error
	if remove {
		err = c.dbs[node].DeleteEntry(table, network, key)
	} else {
		err = c.dbs[node].CreateEntry(table, network, key, value(key))
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// value is as long as an endpoint's record of Docker's usually is, and packs
// no better: names and addresses beside two identifiers.
func value(key string) []byte {
	return fmt.Appendf(nil, "web.%s.%s|web|%s|10.0.0.2|10.0.%d.%d|80/tcp|%s%s", key[:2], key[2:27], key[27:52], key[0],
		key[1], key[30:], key[40:])[:148]
}

// key is as long as an endpoint's id of Docker's, and as random.
func key(k int) string {
	h := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(k)))
	return hex.EncodeToString(h[:])
}

// backlog is how many times a change is still to become visible.
func (c *cluster) backlog() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.pending {
		n += w.left
	}
	return n
}

// differs is how many entries the nodes lack or have too much, in all.
func (c *cluster) differs(want map[string]bool) (n int) {
	for _, db := range c.dbs {
		have := db.GetTableByNetwork(table, network)
		common := 0
		for k := range have {
			if want[k] {
				common++
			}
		}
		n += len(want) + len(have) - 2*common
	}
	return n
}

// until waits for done, up to a limit.
func until(done func() bool, step, limit time.Duration) (time.Duration, bool) {
	start := time.Now()
	for !done() {
		if time.Since(start) >= limit {
			return limit, false
		}
		time.Sleep(step)
	}
	return time.Since(start), true
}
