package rulewatch_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"meshd/lb/rulewatch"
	"meshd/test/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.TestMain(nil, m.Run)) }

// writer writes to a namespace's ruleset from one netlink port.
type writer struct {
	*nftables.Conn

	port      uint32
	questions *netlink.Conn
}

func newWriter(t *testing.T, path string) *writer {
	t.Helper()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	w := &writer{}
	w.Conn, err = nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(ns)),
		nftables.WithSockOptions(func(c *netlink.Conn) error {
			w.port = c.PID()
			return errors.Join(c.SetWriteBuffer(8<<20), c.SetReadBuffer(8<<20))
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.CloseLasting() })
	if w.questions, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(ns)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.questions.Close() })
	return w
}

// number returns that of the ruleset.
func (w *writer) number() (uint32, error) {
	answer, err := w.questions.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   []byte{unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return 0, err
	}
	attributes, err := netlink.NewAttributeDecoder(answer[0].Data[4:])
	if err != nil {
		return 0, err
	}
	attributes.ByteOrder = binary.BigEndian
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_GEN_ID {
			return attributes.Uint32(), nil
		}
	}
	return 0, errors.New("no number")
}

// commit makes a table with a set of so many elements anew, in one transaction:
// what changes nothing is none.
func (w *writer) commit(t *testing.T, elements int) {
	t.Helper()
	table := w.AddTable(&nftables.Table{Name: "others", Family: nftables.TableFamilyIPv4})
	w.DelTable(table)
	w.AddTable(table)
	set := &nftables.Set{Table: table, Name: "numbers", KeyType: nftables.TypeInetService}
	all := make([]nftables.SetElement, elements)
	for i := range all {
		all[i].Key = []byte{byte(i >> 8), byte(i)}
	}
	if elements > 0 {
		if err := w.AddSet(set, all); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestTransactionsOfOthers writes to a ruleset as somebody else, from a port of
// our own, and from a port that was: what others do is heard, once for each
// transaction, however large.
func TestTransactionsOfOthers(t *testing.T) {
	t.Parallel()
	path := rig.NewTest(t, 1).Hosts()[0].Path()
	watcher := rulewatch.New(func(own func(uint32) bool) (rulewatch.Kernel, error) { return rulewatch.Open(path, own) },
		slog.New(slog.DiscardHandler))
	if err := watcher.Err(); err != nil {
		t.Fatal(err)
	}
	heard := watcher.Subscribe()
	run(t, watcher)
	ours, others := newWriter(t, path), newWriter(t, path)
	watcher.SetOwnPort(ours.port, true)
	expect := func(want uint64) {
		t.Helper()
		await(t, func() error {
			if c := watcher.Counters(); c.Heard != want || c.Missed != 0 {
				return fmt.Errorf("counted %+v, want %d", c, want)
			}
			return nil
		})
		if want > 0 {
			<-heard
		}
	}
	ours.commit(t, 2000)
	others.commit(t, 2000)
	expect(1)
	others.commit(t, 0)
	expect(2)
	for range 100 { // more than are read in one go, and no more than wait if nobody reads
		ours.commit(t, 0)
	}
	others.commit(t, 0)
	expect(3)
	aside := func(write func()) {
		t.Helper()
		if err := watcher.RunUnsubscribed(others.number, func() error { write(); return nil }); err != nil {
			t.Error(err)
		}
	}
	aside(func() { others.commit(t, 2000) }) // somebody else's would not be heard
	others.commit(t, 0)
	expect(4)
	aside(func() { ours.commit(t, 2000); others.commit(t, 0) })
	<-heard
	refused := errors.New("refused")
	if err := watcher.RunUnsubscribed(others.number, func() error { others.commit(t, 0); return refused }); !errors.Is(err,
		refused) {
		t.Error(err)
	}
	select { // one transaction, which was not ours
	case <-heard:
	case <-time.After(rig.Patience(10 * time.Second)):
		t.Error("what others wrote while ours was refused is not told")
	}
	watcher.SetOwnPort(ours.port, false)
	ours.commit(t, 0)
	expect(5)
}

// TestTooManyTransactions writes more than a socket holds that nobody reads: the
// next question says so, and the one after it is about what comes then.
func TestTooManyTransactions(t *testing.T) {
	t.Parallel()
	path := rig.NewTest(t, 1).Hosts()[0].Path()
	kernel, err := rulewatch.Open(path, func(uint32) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	others := newWriter(t, path)
	for range 2000 {
		others.commit(t, 0)
	}
	total, missed := 0, 0
	for missed == 0 {
		n, err := kernel.Wait()
		if errors.Is(err, rulewatch.ErrMissed) {
			missed++
		} else if err != nil || n == 0 {
			t.Fatalf("%d, %v, after %d", n, err, total)
		}
		total += n
	}
	if total >= 2000 {
		t.Errorf("heard %d", total)
	}
	closed := make(chan error, 1)
	go func() {
		for {
			if _, err := kernel.Wait(); err != nil && !errors.Is(err, rulewatch.ErrMissed) {
				closed <- err
				return
			}
		}
	}()
	if err := kernel.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-closed:
	case <-time.After(rig.Patience(10 * time.Second)):
		t.Error("Close does not end Wait")
	}
}

// TestSubscribedAgain ends a subscription behind the watcher's back: it is made
// again, and told of in between.
func TestSubscribedAgain(t *testing.T) {
	t.Parallel()
	path := rig.NewTest(t, 1).Hosts()[0].Path()
	var latest atomic.Pointer[rulewatch.Kernel]
	watcher := rulewatch.New(func(own func(uint32) bool) (rulewatch.Kernel, error) {
		kernel, err := rulewatch.Open(path, own)
		latest.Store(&kernel)
		return kernel, err
	}, slog.New(slog.DiscardHandler))
	heard := watcher.Subscribe()
	run(t, watcher)
	_ = (*latest.Load()).Close()
	<-heard // it is asked from now on
	<-heard // what came meanwhile is to be looked at
	if err := watcher.Err(); err != nil {
		t.Error(err)
	}
	newWriter(t, path).commit(t, 0)
	<-heard
	if c := watcher.Counters(); c.Losses != 1 || c.Heard != 1 {
		t.Errorf("counted %+v", c)
	}
}

// await waits until something holds.
func await(t *testing.T, holds func() error) {
	t.Helper()
	wait, cancel := contextFor(t, 10*time.Second)
	defer cancel()
	if err := rig.Poll(wait, holds); err != nil {
		t.Error(err)
	}
}
