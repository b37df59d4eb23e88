package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"

	"github.com/cespare/xxhash/v2"
	bolterrors "go.etcd.io/bbolt/errors"

	"go.etcd.io/bbolt"
)

// The bucket and the key of what a file says of itself.
const (
	aboutBucket = "about"
	digestKey   = "digest"
)

// formatVersion is that of the files that this version writes.
const formatVersion = 1

// digest sums up what a file holds. bbolt checks none of its pages but two: a page that
// is damaged, or is of another time, shows here.
type digest struct {
	Format  int    `json:"format"`
	Records uint64 `json:"records"`
	Sum     uint64 `json:"sum"` // of the hashes of all records; overflows
}

func (s *digest) add(bucket string, key, value []byte) {
	s.Records++
	s.Sum += hashOf(bucket, key, value)
}

func (s *digest) remove(bucket string, key, value []byte) {
	s.Records--
	s.Sum -= hashOf(bucket, key, value)
}

// hashOf hashes a record with its value as it is in the file.
func hashOf(bucket string, key, value []byte) uint64 {
	h := xxhash.New()
	_, _ = h.WriteString(bucket)
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(binary.AppendUvarint(nil, uint64(len(key))))
	_, _ = h.Write(key)
	_, _ = h.Write(value)
	return h.Sum64()
}

// commit makes changes in one transaction and returns the digest of the whole.
func commit(db *bbolt.DB, total digest, changes []Change) (digest, error) {
	err := guarded(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			for i := range changes {
				if err := apply(tx, &total, &changes[i]); err != nil {
					return fmt.Errorf("%s: %w", changes[i].Bucket, err)
				}
			}
			about, err := tx.CreateBucketIfNotExists([]byte(aboutBucket))
			if err != nil {
				return err
			}
			text, err := json.Marshal(total)
			if err != nil {
				return err
			}
			return about.Put([]byte(digestKey), text)
		})
	})
	return total, err
}

// apply makes one change.
func apply(tx *bbolt.Tx, total *digest, c *Change) error {
	b, err := tx.CreateBucketIfNotExists([]byte(c.Bucket))
	if err != nil {
		return err
	}
	key := []byte(c.Key)
	if old := b.Get(key); old != nil {
		total.remove(c.Bucket, key, old)
	}
	if c.Value == nil {
		return b.Delete(key)
	}
	value := sealed(c.Bucket, key, c.Value)
	total.add(c.Bucket, key, value)
	return b.Put(key, value)
}

// sealed returns a value with its checksum before it.
func sealed(bucket string, key, value []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, len(value)+4), checksum(bucket, key, value)), value...)
}

func checksum(bucket string, key, value []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum([]byte(bucket), table), table, key)
	return crc32.Update(sum, table, value)
}

// ErrNewer says that a newer version of the program wrote the file.
var ErrNewer = errors.New("a newer meshd wrote it")

// Read calls f for each record, by bucket and key. It checks that the file holds what
// was written, no more and no less; else the error says that it is corrupted, and f may
// have been called for some records. A missing file has no records and is no error. f
// must not keep value. Read is not called after Write.
func (d *DB) Read(f func(bucket, key string, value []byte) error) error {
	switch err := d.dir.CheckPlain(d.name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("data-dir: %w", err)
	}
	refused := error(nil) // by f
	err := guarded(func() error {
		db, err := bbolt.Open(d.dir.File(d.name), 0o600, d.options(true))
		if err != nil {
			return err
		}
		err = readAll(db, func(bucket, key string, value []byte) error {
			refused = f(bucket, key, value)
			return refused
		})
		return errors.Join(err, db.Close())
	})
	switch {
	case err == nil:
		return nil
	case refused != nil:
		return refused
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("data-dir: another program has %s open; end it, then start again", d.dir.File(d.name))
	case errors.Is(err, ErrNewer):
		return fmt.Errorf("data-dir: %s: %w; start that version, or move the file away to start without what it holds",
			d.dir.File(d.name), err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("data-dir: %w", err)
	}
	return d.dir.Corrupted(d.name, err, "restore it from a backup, or move it away to start without what it held")
}

// readAll reads an open file.
func readAll(db *bbolt.DB, f func(bucket, key string, value []byte) error) error {
	return db.View(func(tx *bbolt.Tx) error {
		want, found, err := readDigest(tx)
		if err != nil {
			return err
		}
		have := digest{Format: want.Format}
		err = tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			if string(name) == aboutBucket {
				return nil
			}
			bucket := string(name)
			return b.ForEach(func(key, value []byte) error {
				have.add(bucket, key, value)
				if len(value) < 4 || binary.BigEndian.Uint32(value) != checksum(bucket, key, value[4:]) {
					return fmt.Errorf("the record %q of %s has another checksum", key, bucket)
				}
				return f(bucket, string(key), value[4:])
			})
		})
		if err == nil && (have != want || !found) {
			err = fmt.Errorf("it holds %d records, and %d were written, or others", have.Records, want.Records)
		}
		return err
	})
}

func readDigest(tx *bbolt.Tx) (want digest, found bool, err error) {
	about := tx.Bucket([]byte(aboutBucket))
	if about == nil {
		return want, false, errors.New("it does not say what it holds")
	}
	if err := json.Unmarshal(about.Get([]byte(digestKey)), &want); err != nil {
		return want, false, err
	}
	if want.Format > formatVersion {
		return want, true, fmt.Errorf("%w (format %d, here %d)", ErrNewer, want.Format, formatVersion)
	}
	return want, true, nil
}

// replaceFile puts a file in the place of another one, on disk too.
func replaceFile(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDirectory(to)
}
