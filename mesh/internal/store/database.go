package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// Change is one change of a DB. Keys are not empty.
type Change struct {
	Bucket, Key string
	Value       []byte // nil removes the key
}

// DB keeps records, by bucket and key, in one file of a Dir. Changes are written
// in transactions: after a crash at whatever moment the file holds all changes of each
// one that Write has returned for, and all or nothing of the last (N11).
//
// The file is made anew, beside the former one and in its place in one step, by the
// first Write of a life, and whenever what it holds is uncertain: after a write that
// failed (what a disk holds after a failed fsync is not known), and when the file is not
// there any more. Its writer has everything in memory anyway. So a file that was read
// is never written to, and pages that nothing uses any more are given back.
//
// Write belongs to one goroutine at a time; the other methods are safe for concurrent use.
type DB struct {
	dir  *Dir
	name string

	mu    sync.Mutex  // held by Write and Close
	db    *bbolt.DB   // nil: the file is to be made anew
	file  fs.FileInfo // of the file that db has open
	total digest      // of what the file holds

	stats counters
}

// counters are those of DBStats.
type counters struct {
	transactions, changes, failures, made atomic.Uint64
	records, size                         atomic.Int64
	last                                  atomic.Int64
}

// DBStats counts what a DB has done since it was made.
type DBStats struct {
	Transactions uint64        // that are on disk
	Changes      uint64        // in them
	Failures     uint64        // of writes
	Made         uint64        // times that the file was made anew
	Records      int64         // in the file
	Size         int64         // of the file, in bytes
	Last         time.Duration // that the last transaction took
}

// NewDB returns the database in a file of the directory. Nothing is read or
// written before Read and Write.
func NewDB(dir *Dir, name string) *DB { return &DB{dir: dir, name: name} }

// Stats returns the counters.
func (d *DB) Stats() DBStats {
	return DBStats{
		Transactions: d.stats.transactions.Load(), Changes: d.stats.changes.Load(), Failures: d.stats.failures.Load(),
		Made: d.stats.made.Load(), Records: d.stats.records.Load(), Size: d.stats.size.Load(),
		Last: time.Duration(d.stats.last.Load()),
	}
}

// Present reports whether there is a file.
func (d *DB) Present() bool {
	_, err := os.Lstat(d.dir.File(d.name))
	return err == nil
}

// Write makes changes, in their order, in one transaction, and returns when the disk has
// it. all returns everything that the file is to hold, the changes included; it is
// called if the file is made anew. On an error the file that the next Read finds holds
// what it did before, or the changes besides, and the next Write makes it anew. See
// Dir.Trouble.
func (d *DB) Write(changes []Change, all func() []Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dir.begin(d.name)
	began := time.Now()
	err := d.write(changes, all)
	if err != nil {
		d.stats.failures.Add(1)
		err = fmt.Errorf("data-dir: write %s: %w", d.dir.File(d.name), err)
	} else {
		d.stats.transactions.Add(1)
		d.stats.changes.Add(uint64(len(changes)))
		d.stats.records.Store(int64(d.total.Records))
		d.stats.last.Store(int64(time.Since(began)))
	}
	d.dir.end(d.name, err)
	return err
}

func (d *DB) write(changes []Change, all func() []Change) error {
	if d.db != nil && !d.same() {
		d.abandon()
	}
	if err := writable(d.dir.path); err != nil {
		return err
	}
	if d.db == nil {
		return d.makeAnew(all())
	}
	total, err := commit(d.db, d.total, changes)
	if err == nil && !d.same() {
		err = errors.New("it was removed while it was written")
	}
	if err != nil {
		d.abandon()
		return err
	}
	d.total = total
	return nil
}

// same reports whether the file that is open is still the one in the directory, and
// not shorter than it was: its pages are mapped into memory.
func (d *DB) same() bool {
	now, err := os.Lstat(d.dir.File(d.name))
	if err != nil || !os.SameFile(now, d.file) || now.Size() < d.file.Size() {
		return false
	}
	d.file = now
	d.stats.size.Store(now.Size())
	return true
}

// abandon closes the file; the next write makes it anew.
func (d *DB) abandon() {
	db := d.db
	d.db, d.file = nil, nil
	_ = guarded(db.Close) // nothing of it is needed any more
}

// makeAnew writes everything to a file of its own and puts it in the place of the former.
func (d *DB) makeAnew(all []Change) error {
	f, err := os.CreateTemp(d.dir.path, "."+d.name+".*")
	if err != nil {
		return err
	}
	temporary := f.Name()
	var db *bbolt.DB
	defer func() {
		if d.db != nil {
			return
		}
		if db != nil {
			_ = guarded(db.Close)
		}
		_ = os.Remove(temporary)
	}()
	err = errors.Join(f.Chmod(0o600), f.Close())
	if err == nil {
		err = guarded(func() (err error) {
			db, err = bbolt.Open(temporary, 0o600, d.options(false))
			return err
		})
	}
	if err != nil {
		return err
	}
	total, err := commit(db, digest{Format: formatVersion}, all)
	if err != nil {
		return err
	}
	if err := replaceFile(temporary, d.dir.File(d.name)); err != nil {
		return err
	}
	info, err := os.Lstat(d.dir.File(d.name))
	if err != nil {
		return err
	}
	d.db, d.file, d.total = db, info, total
	d.stats.made.Add(1)
	d.stats.size.Store(info.Size())
	return nil
}

// lockPatience is how long the file's own lock is waited for.
const lockPatience = 2 * time.Second

func (d *DB) options(readOnly bool) *bbolt.Options {
	o := *bbolt.DefaultOptions
	o.Timeout, o.ReadOnly, o.FreelistType = lockPatience, readOnly, bbolt.FreelistMapType
	return &o
}

// Close closes the file. What hangs in a write is left behind: the process ends.
func (d *DB) Close() error {
	if !d.mu.TryLock() {
		return nil
	}
	defer d.mu.Unlock()
	if d.db != nil {
		d.abandon()
	}
	return nil
}

// guarded calls f, and returns what it panics with as an error: the pages of a file that
// somebody has cut off, or a disk cannot read, or that are not what bbolt wrote.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("its pages cannot be read: %v", v)
		}
	}()
	return f()
}
