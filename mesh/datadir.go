package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"meshd/gossip"
)

// The files of the data directory, which hold what must survive the process.
const (
	fileNode      = "node.json"      // the name, the last incarnation and the Lamport time (S7, S8)
	fileTasks     = "tasks.json"     // registrations, networks made here, claims carried (V2, V6)
	fileSandboxes = "sandboxes.json" // attached containers (L4)
	fileSysctls   = "sysctls.json"   // settings of the host that were changed, and how they were found (N8)
	filePeers     = "peers.json"     // nodes once met (G2); a cache
	fileKeys      = "keys.json"      // the keyring as the mesh last changed it (G9)
	fileLock      = "lock"
	fileProbe     = ".writable"
)

// maxDataFile is what ten million tasks need, in bytes, and more than that of
// the files that grow with the tasks; the others hold less.
const (
	maxDataFile  = 4 << 30
	maxPeersFile = 16 << 20
)

func maxSize(name string) int64 {
	if name == filePeers {
		return maxPeersFile
	}
	return maxDataFile
}

// dataDir is the data directory. Every file is replaced atomically. A file that
// cannot be read is never overwritten: the daemon refuses to start and says what
// to do. Its methods are safe for concurrent use; each file has one writer.
type dataDir struct {
	path  string
	write func(path string, b []byte, mode os.FileMode) error // gossip.WriteFile, or a test's

	mu     sync.Mutex // guards what follows; never held while the disk is waited for
	lock   *os.File
	failed map[string]error     // why the last write of a file failed
	busy   map[string]time.Time // files that are being written, since when
}

// newDataDir returns a directory that is not locked: to read what is there.
func newDataDir(path string) *dataDir {
	return &dataDir{path: path, write: gossip.WriteFile, failed: map[string]error{}, busy: map[string]time.Time{}}
}

// lockWait is how long the lock of a data directory is waited for: a daemon
// that was killed holds it until the kernel has ended it.
const lockWait = 2 * time.Second

// lockSoon takes the lock, waiting for a former owner's end.
func lockSoon(f *os.File) (err error) {
	for end := time.Now().Add(lockWait); ; {
		if err = lockFile(f); err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// openDataDir creates and locks the directory, and removes what a daemon that
// was killed left there half written.
func openDataDir(path string) (*dataDir, error) {
	d := newDataDir(path)
	lock, err := d.acquire()
	if err != nil {
		return nil, err
	}
	d.lock = lock
	if err := d.probe(); err != nil {
		return nil, errors.Join(fmt.Errorf("data-dir: not writable: %w; choose a writable --data-dir", err), lock.Close())
	}
	return d, d.removeHalfWritten()
}

// acquire makes the directory, if need be, and returns its lock.
func (d *dataDir) acquire() (*os.File, error) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("data-dir: %w; choose a writable --data-dir", err)
	}
	if err := d.guarded(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.file(fileLock), os.O_CREATE|os.O_RDWR|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data-dir: not writable: %w; choose a writable --data-dir", err)
	}
	if err := lockSoon(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("data-dir %s: another meshd uses it; stop that one or choose another --data-dir", d.path)
	}
	return f, nil
}

// guarded refuses a directory in which others could put files of theirs: what
// is in it is stated, and tells which namespaces to enter and which keys to use.
func (d *dataDir) guarded() error {
	info, err := os.Stat(d.path)
	if err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("data-dir: %s is writable for all, who could register and attach what they like; chmod o-w %s, "+
			"or choose another --data-dir", d.path, d.path)
	}
	if uid, ok := ownerOf(info); ok && uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("data-dir: %s belongs to user %d, who could change what is in it; chown %d %s, or choose "+
			"another --data-dir", d.path, uid, os.Geteuid(), d.path)
	}
	return nil
}

// plain refuses what is no plain file: a pipe, say, would be waited for without
// an end; and one that meshd cannot have written, for its size. A missing one is
// an error of fs.ErrNotExist.
func (d *dataDir) plain(name string) error {
	info, err := os.Stat(d.file(name))
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a plain file; move it away", d.file(name))
	}
	if err == nil && info.Size() > maxSize(name) {
		err = fmt.Errorf("%s has more than %d bytes; move it away", d.file(name), maxSize(name))
	}
	return err
}

// removeHalfWritten removes the temporary files of writes that a kill cut off.
// Nobody else writes: the caller has the lock.
func (d *dataDir) removeHalfWritten() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	for _, e := range entries {
		for _, name := range []string{fileNode, fileTasks, fileSandboxes, fileSysctls, filePeers, fileKeys} {
			if strings.HasPrefix(e.Name(), "."+name+".") {
				_ = os.Remove(d.file(e.Name()))
			}
		}
	}
	return nil
}

// probe writes a little and removes it. A page, since an empty file can be made
// on a full disk.
func (d *dataDir) probe() error {
	probe := d.file(fileProbe)
	err := os.WriteFile(probe, make([]byte, 4096), 0o600)
	if remove := os.Remove(probe); err == nil {
		err = remove
	}
	return err
}

func (d *dataDir) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lock.Close()
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// present reports whether the directory is still the one that was locked.
func (d *dataDir) present() bool {
	d.mu.Lock()
	lock := d.lock
	d.mu.Unlock()
	ours, err := lock.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(d.file(fileLock))
	return err == nil && os.SameFile(ours, there)
}

// remake makes a directory again that somebody removed, and locks it.
func (d *dataDir) remake() error {
	lock, err := d.acquire()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.lock.Close()
	d.lock = lock
	return nil
}

// load reads a JSON file into v; a missing one leaves v as it is.
func (d *dataDir) load(name string, v any) error {
	err := d.plain(name)
	var b []byte
	if err == nil {
		b, err = readPlain(d.file(name), maxSize(name), nil)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	err = dec.Decode(v)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more after its end")
		}
	}
	if err != nil {
		return d.corrupted(name, err, "restore it from a backup, or move it away to start without what it held")
	}
	return nil
}

// corrupted says that a file holds what meshd cannot have written.
func (d *dataDir) corrupted(name string, err error, fix string) error {
	return fmt.Errorf("data-dir: %s is corrupted (%w) and was left as it is: %s", d.file(name), err, fix)
}

// save replaces a file by v in JSON.
func (d *dataDir) save(name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return d.put(name, append(b, '\n'))
}

// put replaces a file, and notes whether that works.
func (d *dataDir) put(name string, b []byte) error {
	d.begin(name)
	err := d.write(d.file(name), b, 0o600)
	if err != nil {
		err = fmt.Errorf("data-dir: %w", err)
	}
	d.end(name, err)
	return err
}

func (d *dataDir) begin(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy[what] = time.Now()
}

func (d *dataDir) end(what string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.busy, what)
	if err == nil {
		delete(d.failed, what)
		return
	}
	d.failed[what] = err
}

// slowWrite is how long a write may take before status says so.
const slowWrite = 5 * time.Second

// trouble says what does not work with the directory at the moment, or "".
func (d *dataDir) trouble() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(d.failed)) {
		return fmt.Sprintf("%v; nothing can be registered: free space, or make the directory writable (meshd tries again "+
			"by itself)", d.failed[name])
	}
	for _, name := range slices.Sorted(maps.Keys(d.busy)) {
		if took := time.Since(d.busy[name]); took > slowWrite {
			return fmt.Sprintf("data-dir: the disk has not finished writing %s for %v; registrations wait for it", d.file(name),
				took.Round(time.Second))
		}
	}
	return ""
}

// failing reports whether the last write of a file failed.
func (d *dataDir) failing(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed[name] != nil
}

// unsaved returns why files are not as they should be, or nil.
func (d *dataDir) unsaved() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.failed)) {
		if name != filePeers && name != fileProbe { // a cache, and nothing
			errs = append(errs, fmt.Errorf("%s was not saved: %w", name, d.failed[name]))
		}
	}
	return errors.Join(errs...)
}
