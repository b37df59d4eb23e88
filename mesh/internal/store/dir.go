package store

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
)

// lockName and probeName are the two files of the directory's own.
const (
	lockName  = "lock"
	probeName = ".writable"
)

// File describes a file of the directory.
type File struct {
	Name    string // without a directory
	MaxSize int64  // in bytes; 0: DefaultMaxSize
	Cache   bool   // nothing is lost with it: Unsaved does not count it
}

// DefaultMaxSize is how many bytes a file may have: more than ten million tasks need.
const DefaultMaxSize = 4 << 30

// Dir is a data directory. Every file is replaced atomically. A file that cannot be
// read is never overwritten: whoever reads it refuses to start and says what to do.
// Its methods are safe for concurrent use; each file has one writer.
type Dir struct {
	path  string
	files map[string]File // by name; never changed
	// write is WriteFile, or a test's.
	write func(path string, b []byte, mode os.FileMode) error

	mu     sync.Mutex // guards the fields below; never held while the disk is waited for
	lock   *os.File
	failed map[string]error     // why the last write of a file failed
	busy   map[string]time.Time // files that are being written, since when
}

// Unlocked returns a directory that is not locked, to read its files.
func Unlocked(path string, files ...File) *Dir {
	d := &Dir{
		path: path, write: WriteFile, files: map[string]File{}, failed: map[string]error{}, busy: map[string]time.Time{},
	}
	for _, f := range files {
		d.files[f.Name] = f
	}
	return d
}

// maxSize returns how many bytes a file may have.
func (d *Dir) maxSize(name string) int64 {
	if size := d.files[name].MaxSize; size > 0 {
		return size
	}
	return DefaultMaxSize
}

// lockWait is how long Open waits for the lock: a daemon that was killed holds it
// until the kernel has ended the process.
const lockWait = 2 * time.Second

// ErrInUse says that another process has opened the directory.
var ErrInUse = errors.New("the data directory is in use")

// Acquire keeps others from opening the directory at path until release is called.
// It makes the lock's file, but not the directory. The error is fs.ErrNotExist where
// there is none, or ErrInUse.
func Acquire(path string) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(ErrInUse, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// waitForLock takes the lock, waiting for a former owner's end.
func waitForLock(f *os.File) (err error) {
	for end := time.Now().Add(lockWait); ; {
		if err = lockFile(f); err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Open creates and locks the directory, and removes the temporary files that
// a killed daemon left in it. files are those that the directory is to hold. Errors
// begin with "data-dir" and say what to do. Close releases the lock.
func Open(path string, files ...File) (*Dir, error) {
	d := Unlocked(path, files...)
	lock, err := d.lockDirectory()
	if err != nil {
		return nil, err
	}
	d.lock = lock
	if err := d.Probe(); err != nil {
		return nil, errors.Join(fmt.Errorf("data-dir: not writable: %w; choose a writable --data-dir", err), lock.Close())
	}
	return d, d.removeHalfWritten()
}

// lockDirectory makes the directory, if need be, and returns its lock.
func (d *Dir) lockDirectory() (*os.File, error) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("data-dir: %w; choose a writable --data-dir", err)
	}
	if err := d.CheckOwner(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.File(lockName), os.O_CREATE|os.O_RDWR|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data-dir: not writable: %w; choose a writable --data-dir", err)
	}
	if err := waitForLock(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("data-dir %s: another meshd uses it; stop that one or choose another --data-dir", d.path)
	}
	return f, nil
}

// CheckOwner refuses a directory in which other users could put files: its content is
// stated to the mesh, and names the namespaces to enter and the keys to use.
func (d *Dir) CheckOwner() error {
	info, err := os.Stat(d.path)
	if err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("data-dir: %s is writable for all, who could register and attach what they like; chmod o-w %s, "+
			"or choose another --data-dir", d.path, d.path)
	}
	if uid, ok := OwnerOf(info); ok && uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("data-dir: %s belongs to user %d, who could change what is in it; chown %d %s, or choose "+
			"another --data-dir", d.path, uid, os.Geteuid(), d.path)
	}
	return nil
}

// CheckPlain refuses what is no plain file, since reading a pipe may never end, and a
// file that is larger than meshd could have written. The error of a missing file is
// fs.ErrNotExist.
func (d *Dir) CheckPlain(name string) error {
	info, err := os.Stat(d.File(name))
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a plain file; move it away", d.File(name))
	}
	if err == nil && info.Size() > d.maxSize(name) {
		err = fmt.Errorf("%s has more than %d bytes; move it away", d.File(name), d.maxSize(name))
	}
	return err
}

// removeHalfWritten removes the temporary files of writes that a kill interrupted.
// The caller has the lock, so no other process writes.
func (d *Dir) removeHalfWritten() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	for _, e := range entries {
		for name := range d.files {
			if strings.HasPrefix(e.Name(), "."+name+".") {
				_ = os.Remove(d.File(e.Name()))
			}
		}
	}
	return nil
}

// Probe writes a page and removes it: an empty file can be made on a full disk.
func (d *Dir) Probe() error {
	probe := d.File(probeName)
	err := os.WriteFile(probe, make([]byte, 4096), 0o600)
	if remove := os.Remove(probe); err == nil {
		err = remove
	}
	return err
}

// Close releases the lock.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lock.Close()
}

// Root returns the path of the directory.
func (d *Dir) Root() string { return d.path }

// File returns the path of a file.
func (d *Dir) File(name string) string { return filepath.Join(d.path, name) }

// Present reports whether the directory is still the one that was locked.
func (d *Dir) Present() bool {
	d.mu.Lock()
	lock := d.lock
	d.mu.Unlock()
	ours, err := lock.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(d.File(lockName))
	return err == nil && os.SameFile(ours, there)
}

// Remake makes and locks the directory again after it was removed.
func (d *Dir) Remake() error {
	lock, err := d.lockDirectory()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.lock.Close()
	d.lock = lock
	return nil
}

// Load reads a JSON file into v. A missing file leaves v as it is and is no error.
func (d *Dir) Load(name string, v any) error {
	b, err := d.Read(name)
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
		return d.Corrupted(name, err, "restore it from a backup, or move it away to start without what it held")
	}
	return nil
}

// maxKept bounds how many former files of one name are kept.
const maxKept = 100

// KeepAs gives a file another name, "<name>.<suffix>", that no file has yet, and returns
// its new path.
func (d *Dir) KeepAs(name, suffix string) (string, error) {
	for i := range maxKept {
		to := d.File(name + "." + suffix)
		if i > 0 {
			to = fmt.Sprintf("%s.%d", to, i+1)
		}
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		return to, replaceFile(d.File(name), to)
	}
	return "", fmt.Errorf("%s.%s and %d more are there; remove those that are not needed", d.File(name), suffix, maxKept-1)
}

// Corrupted is the error of a file that meshd cannot have written; fix says what to do.
func (d *Dir) Corrupted(name string, err error, fix string) error {
	return fmt.Errorf("data-dir: %s is corrupted (%w) and was left as it is: %s", d.File(name), err, fix)
}

// Save replaces a file by v in JSON.
func (d *Dir) Save(name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return d.Replace(name, append(b, '\n'))
}

// Replace replaces a file, and remembers whether that worked: see Trouble.
func (d *Dir) Replace(name string, b []byte) error {
	d.begin(name)
	err := d.write(d.File(name), b, 0o600)
	if err != nil {
		err = fmt.Errorf("data-dir: %w", err)
	}
	d.end(name, err)
	return err
}

// begin notes that a file is being written, end that it was, or why it could not be.
func (d *Dir) begin(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy[what] = time.Now()
}

func (d *Dir) end(what string, err error) {
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

// Trouble says what does not work with the directory at the moment; "" if it works.
func (d *Dir) Trouble() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(d.failed)) {
		return fmt.Sprintf("%v; nothing can be registered: free space, or make the directory writable (meshd tries again "+
			"by itself)", d.failed[name])
	}
	for _, name := range slices.Sorted(maps.Keys(d.busy)) {
		if took := time.Since(d.busy[name]); took > slowWrite {
			return fmt.Sprintf("data-dir: the disk has not finished writing %s for %v; registrations wait for it", d.File(name),
				took.Round(time.Second))
		}
	}
	return ""
}

// Failing reports whether the last write of a file failed.
func (d *Dir) Failing(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed[name] != nil
}

// Unsaved returns which files could not be written, caches aside, and why; or nil.
func (d *Dir) Unsaved() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.failed)) {
		if !d.files[name].Cache && name != probeName { // which holds nothing
			errs = append(errs, fmt.Errorf("%s was not saved: %w", name, d.failed[name]))
		}
	}
	return errors.Join(errs...)
}
