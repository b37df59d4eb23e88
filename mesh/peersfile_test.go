package mesh

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/gossip"
	"meshd/mesh/internal/store"
	"meshd/state"
)

// book is what a peersFile is told to keep.
type book struct {
	t     *testing.T
	file  *peersFile
	peers map[state.NodeID]gossip.Peer
}

func newBook(t *testing.T) *book {
	d := store.Unlocked(t.TempDir(), dataFiles()...)
	return &book{t: t, file: &peersFile{dir: d}, peers: map[state.NodeID]gossip.Peer{}}
}

func (b *book) all() (ps []gossip.Peer) {
	for _, p := range b.peers {
		ps = append(ps, p)
	}
	return ps
}

// set keeps a peer, and remove forgets one.
func (b *book) set(i int) {
	b.t.Helper()
	p := gossip.Peer{
		Name: state.NodeID(fmt.Sprintf("n%05d", i)), Seen: time.Now().UTC().Truncate(time.Second),
		Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 7946),
	}
	b.peers[p.Name] = p
	if err := b.file.save([]gossip.PeerChange{{Peer: p}}, b.all); err != nil {
		b.t.Fatal(err)
	}
}

// nextLife compares what the next life reads.
func (b *book) nextLife(what string) {
	b.t.Helper()
	n := &opening{Node: &Node{dir: b.file.dir, log: slog.New(slog.DiscardHandler), started: time.Now().Add(time.Second)}}
	got := n.loadPeers()
	want := b.all()
	slices.SortFunc(want, func(x, y gossip.Peer) int { return strings.Compare(string(x.Name), string(y.Name)) })
	if len(n.late) > 0 || !slices.Equal(got, want) {
		b.t.Errorf("%s: the next life knows %d peers of %d, and moves %d files", what, len(got), len(want), len(n.late))
	}
}

// A change is appended to the log, and all are written anew once that is long: what is
// written for each of many changes does not grow with the peers.
func TestPeersAreAppended(t *testing.T) {
	b := newBook(t)
	for i := range 3000 {
		b.set(i)
	}
	b.nextLife("after many changes")
	if a, r := b.file.appended.Load(), b.file.rewritten.Load(); a+r != 3000 || r < 2 || r > 12 {
		t.Errorf("%d appended, %d written anew", a, r)
	}
	before := b.file.size.Load()
	delete(b.peers, "n00007")
	gone := gossip.PeerChange{Peer: gossip.Peer{Name: "n00007"}, Gone: true}
	if err := b.file.save([]gossip.PeerChange{gone}, b.all); err != nil {
		t.Fatal(err)
	}
	b.nextLife("after one left")
	if grown := b.file.size.Load() - before; grown < 1 || grown > 200 {
		t.Errorf("one change of 3,000 wrote %d bytes", grown)
	}
	b.file.wroteAt = b.file.wroteAt.Add(-2 * peersRewrite)
	b.set(0)
	if log, err := os.ReadFile(b.file.dir.File(filePeersLog)); err != nil || strings.Count(string(log), "\n") != 1 {
		t.Errorf("after an hour the log has %d bytes, %v", len(log), err)
	}
}

// Files that somebody removed or changed are written anew with the next change.
func TestPeersFilesAreTampered(t *testing.T) {
	for name, tamper := range map[string]func(b *book) error{
		"all removed":   func(b *book) error { return os.Remove(b.file.dir.File(filePeers)) },
		"log removed":   func(b *book) error { return os.Remove(b.file.dir.File(filePeersLog)) },
		"all replaced":  func(b *book) error { return os.WriteFile(b.file.dir.File(filePeers), []byte("[]"), 0o600) },
		"log cut off":   func(b *book) error { return os.Truncate(b.file.dir.File(filePeersLog), 9) },
		"log lengthens": func(b *book) error { return os.Truncate(b.file.dir.File(filePeersLog), 9000) },
		"log a link": func(b *book) error {
			path := b.file.dir.File(filePeersLog)
			return errors.Join(os.Remove(path), os.Symlink("/dev/null", path))
		},
	} {
		b := newBook(t)
		for i := range 5 {
			b.set(i)
		}
		if err := tamper(b); err != nil {
			t.Fatal(err)
		}
		b.set(5)
		b.nextLife(name)
		b.set(6)
		b.nextLife(name + ", and one more")
	}
}

// A log that is no plain file, or too long, is moved aside and told; the peers file counts.
func TestPeersLogThatIsNone(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"huge":        func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
	} {
		b := newBook(t)
		b.set(1)
		path := b.file.dir.File(filePeersLog)
		if err := errors.Join(os.Remove(path), spoil(path)); err != nil {
			t.Fatal(err)
		}
		n := &opening{Node: &Node{dir: b.file.dir, log: slog.New(slog.DiscardHandler), started: time.Now().Add(time.Second)}}
		if got := n.loadPeers(); len(got) != 1 || len(n.late) != 1 {
			t.Fatalf("%s: %v, %d moved", name, got, len(n.late))
		}
		n.late[0]()
		if s := n.notices.All(); len(s) != 1 || !strings.Contains(s[0], path) {
			t.Errorf("%s: told %q", name, s)
		}
	}
}

// While the disk takes nothing, a change is put off, and is not lost.
func TestPeersWhileTheDiskFails(t *testing.T) {
	b := newBook(t)
	b.set(1)
	blocked := b.file.dir.File(filePeers)
	if err := errors.Join(os.Remove(blocked), os.Mkdir(blocked, 0o700)); err != nil {
		t.Fatal(err)
	}
	change := []gossip.PeerChange{{Peer: b.peers["n00001"]}}
	if err := b.file.save(change, b.all); err == nil || errors.Is(err, errPutOff) || b.file.dir.Trouble() == "" {
		t.Fatal("written over a directory", err)
	}
	if err := b.file.save(change, b.all); !errors.Is(err, errPutOff) {
		t.Errorf("tried again at once: %v", err)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	b.file.retryAt = time.Now()
	b.set(2)
	b.nextLife("afterwards")
	if s := b.file.dir.Trouble(); s != "" {
		t.Error(s)
	}
}

// What a version wrote that knows no log is read, and what is written at the end is what
// that version reads.
func TestPeersOfOtherVersions(t *testing.T) {
	b := newBook(t)
	b.set(1)
	b.set(2)
	older := `[
 {
  "name": "x",
  "addr": "10.0.0.9:7946",
  "seen": "2026-11-30T12:00:00Z"
 }
]
`
	if err := os.WriteFile(b.file.dir.File(filePeers), []byte(older), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	b.peers = map[state.NodeID]gossip.Peer{"x": {Name: "x", Addr: netip.MustParseAddrPort("10.0.0.9:7946"), Seen: at}}
	n := &opening{Node: &Node{dir: b.file.dir, log: slog.New(slog.DiscardHandler), started: at.Add(time.Minute)}}
	if got := n.loadPeers(); !slices.Equal(got, b.all()) {
		t.Errorf("of another version: %v", got)
	}
	if err := b.file.save(nil, b.all); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(b.file.dir.File(filePeers)); err != nil || string(text) != older {
		t.Errorf("at the end: %s, %v", text, err)
	}
}
