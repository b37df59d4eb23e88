package mesh

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"meshd/gossip"
	"meshd/mesh/internal/metrics"
	"meshd/mesh/internal/store"
)

// peersFile keeps the peers on disk: all of them in one file, which earlier versions read
// too, and what changed since in a log beside it, so that a change costs what it changes.
// All are written anew once the log is the longer of the two, after an hour at the next
// change, and whenever the files may not be as this life left them. Its methods are safe
// for concurrent use.
type peersFile struct {
	dir *store.Dir // the data directory

	mu      sync.Mutex  // held while the disk is waited for
	whole   fs.FileInfo // of the file with all peers; nil: it is to be written
	wroteAt time.Time   // when it was
	logSize int64       // bytes of the log
	retryAt time.Time   // no change is tried before, after a failure

	appended, rewritten atomic.Uint64 // writes of changes, and of all
	size                atomic.Int64  // bytes of both files
}

// When all peers are written anew.
const (
	minPeersLog   = 64 << 10 // bytes that a log may always have
	peersRewrite  = time.Hour
	peersPatience = 10 * time.Second // after a failure
)

// errPutOff says that the disk failed a moment ago.
var errPutOff = errors.New("data-dir: the peers are tried again in a moment")

// save is HostConfig.SavePeers. See Dir.Trouble.
func (f *peersFile) save(changes []gossip.PeerChange, all func() []gossip.Peer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if changes != nil && now.Before(f.retryAt) {
		return errPutOff
	}
	if changes != nil && f.mayAppend(now) && f.append(changes) == nil {
		return nil
	}
	err := f.rewrite(all())
	if err != nil {
		f.whole, f.retryAt = nil, now.Add(peersPatience)
	}
	return err
}

// mayAppend reports whether a change may go to the log.
func (f *peersFile) mayAppend(now time.Time) bool {
	if f.whole == nil || now.Sub(f.wroteAt) > peersRewrite || f.logSize > max(minPeersLog, f.whole.Size()) {
		return false
	}
	info, err := os.Lstat(f.dir.File(filePeers))
	return err == nil && os.SameFile(info, f.whole) && info.Size() == f.whole.Size() &&
		info.ModTime().Equal(f.whole.ModTime())
}

func (f *peersFile) append(changes []gossip.PeerChange) error {
	lines, err := gossip.EncodePeerChanges(changes)
	if err == nil {
		err = f.dir.Append(filePeersLog, f.logSize, lines)
	}
	if err == nil {
		f.logSize += int64(len(lines))
		f.size.Add(int64(len(lines)))
		f.appended.Add(1)
	}
	return err
}

// rewrite writes all peers and begins a new log. After a crash in between, the former log
// is none of the new file, which has what was in it.
func (f *peersFile) rewrite(peers []gossip.Peer) error {
	file, log, err := gossip.EncodePeers(peers)
	if err != nil {
		return err
	}
	if err := f.dir.Replace(filePeers, file); err != nil {
		return err
	}
	if err := f.dir.Replace(filePeersLog, log); err != nil {
		return err
	}
	if f.whole, err = os.Lstat(f.dir.File(filePeers)); err != nil {
		return err
	}
	f.wroteAt, f.logSize, f.retryAt = time.Now(), int64(len(log)), time.Time{}
	f.size.Store(int64(len(file) + len(log)))
	f.rewritten.Add(1)
	return nil
}

// collect sends the metrics of the files.
func (f *peersFile) collect(e metrics.Emitter) {
	const help = "Writes of the peers: what changed, appended to a log, or all."
	e.Counter("meshd_peers_writes_total", help, f.appended.Load(), "kind", "appended")
	e.Counter("meshd_peers_writes_total", help, f.rewritten.Load(), "kind", "all")
	e.Gauge("meshd_peers_bytes", "Size of the files of the peers, as this life wrote them.", float64(f.size.Load()))
}

// loadPeers reads the peers of former lives. They are a cache: a file that cannot be read
// is moved away, and the node joins through its seeds.
func (n *opening) loadPeers() []gossip.Peer {
	file, err := n.dir.Read(filePeers)
	log, trouble := n.dir.Read(filePeersLog)
	if trouble != nil && !errors.Is(trouble, fs.ErrNotExist) {
		n.moveAway(filePeersLog, trouble, "what changed of the nodes to join since peers.json was written is not known")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var peers []gossip.Peer
	damaged := 0
	if err == nil {
		if peers, damaged, err = gossip.DecodePeers(file, log, n.started); err != nil {
			err = fmt.Errorf("peers file %s is corrupted (%w)", n.dir.File(filePeers), err)
		}
	}
	if err != nil {
		n.moveAway(filePeers, err, "this node finds the mesh through --join only")
		return nil
	}
	if damaged > 0 {
		n.log.Warn("lines of the log of peers are damaged and left out", "path", n.dir.File(filePeersLog), "count", damaged)
	}
	return peers
}
