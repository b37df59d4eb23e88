package store

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

// contents is what a database is to hold, by bucket and key.
type contents map[[2]string]string

func (c contents) apply(changes []Change) {
	for _, ch := range changes {
		if c[[2]string{ch.Bucket, ch.Key}] = string(ch.Value); ch.Value == nil {
			delete(c, [2]string{ch.Bucket, ch.Key})
		}
	}
}

func (c contents) all() (out []Change) {
	for k, v := range c {
		out = append(out, Change{k[0], k[1], []byte(v)})
	}
	return out
}

// readBack reads the file as the next life does.
func readBack(d *Dir) (contents, error) {
	c := contents{}
	err := NewDB(d, "test.db").Read(func(bucket, key string, value []byte) error {
		c[[2]string{bucket, key}] = string(value)
		return nil
	})
	return c, err
}

func openDir(t testing.TB) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "data"), File{Name: "test.db"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// Whatever is written, in however many lives, is what the next life reads.
func TestDBHoldsWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d, want := openDir(t), contents{}
		for range rapid.IntRange(1, 4).Draw(rt, "lives") {
			db := NewDB(d, "test.db")
			for range rapid.IntRange(0, 4).Draw(rt, "transactions") {
				changes := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) Change {
					c := Change{Bucket: rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "bucket")}
					c.Key = fmt.Sprint("k", rapid.IntRange(0, 9).Draw(rt, "key"))
					if rapid.Bool().Draw(rt, "set") {
						c.Value = append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 9000).Draw(rt, "value")...)
					}
					return c
				}), 0, 20).Draw(rt, "changes")
				want.apply(changes)
				if err := db.Write(changes, want.all); err != nil {
					rt.Fatal(err)
				}
			}
			_ = db.Close()
			if got, err := readBack(d); err != nil || !maps.Equal(got, want) {
				rt.Fatalf("%v: %d records, want %d", err, len(got), len(want))
			}
		}
	})
}

// fill returns a database of so many records.
func fill(t testing.TB, d *Dir, records int) (*DB, contents) {
	t.Helper()
	db, c := NewDB(d, "test.db"), contents{}
	for i := range records {
		c[[2]string{"tasks", fmt.Sprintf("net\x00t%05d", i)}] = strings.Repeat(fmt.Sprint(i, " "), 20)
	}
	if err := db.Write(nil, c.all); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db, c
}

// A file of which any byte is another one, or a part is missing, is read as it was, or
// refused by its name, and stays as it is: never a panic, never something else.
func TestDamagedFilesAreRefused(t *testing.T) {
	d := openDir(t)
	db, want := fill(t, d, 500)
	_ = db.Close()
	whole, err := os.ReadFile(d.File("test.db"))
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	try := func(what string, text []byte) {
		if err := os.WriteFile(d.File("test.db"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readBack(d)
		after, _ := os.ReadFile(d.File("test.db"))
		switch {
		case string(after) != string(text):
			t.Errorf("%s: the file was changed", what)
		case err != nil && (!strings.Contains(err.Error(), d.File("test.db")) ||
			!strings.Contains(err.Error(), "move it away")):
			t.Errorf("%s: neither the file nor what to do: %v", what, err)
		case err == nil && !maps.Equal(got, want):
			t.Errorf("%s: it is read with %d records of %d", what, len(got), len(want))
		case err != nil:
			refused++
		}
	}
	for at := 0; at < len(whole); at += 997 {
		text := []byte(string(whole))
		text[at] ^= 0x5a
		try(fmt.Sprintf("byte %d of %d", at, len(whole)), text)
	}
	for _, size := range []int{0, 1, 4096, 8192, len(whole) / 2, len(whole) - 4096} {
		try(fmt.Sprintf("the first %d of %d bytes", size, len(whole)), whole[:size])
	}
	for at := 0; at+4096 <= len(whole); at += 4096 {
		text := []byte(string(whole))
		clear(text[at : at+4096])
		try(fmt.Sprintf("no page at %d", at), text)
	}
	try("text", []byte(strings.Repeat("{}", 20_000)))
	if refused < 20 {
		t.Errorf("only %d of them are refused", refused)
	}
}

// A write that fails leaves the file as it was, and the next one makes it anew.
func TestFailedWriteMakesTheFileAnew(t *testing.T) {
	d := openDir(t)
	db, want := fill(t, d, 100)
	add := func(key string) error {
		changes := []Change{{"tasks", key, []byte("x")}}
		next := maps.Clone(want)
		next.apply(changes)
		err := db.Write(changes, next.all)
		if err == nil {
			want = next
		}
		return err
	}
	if err := add("before"); err != nil {
		t.Fatal(err)
	}
	_ = db.db.Close() // what a disk does that fails
	if err := add("failed"); err == nil || d.Trouble() == "" {
		t.Fatal("written to a closed file", err)
	}
	if got, err := readBack(d); err != nil || !maps.Equal(got, want) {
		t.Errorf("after the failure: %v, %d records, want %d", err, len(got), len(want))
	}
	if err := add("after"); err != nil || d.Trouble() != "" {
		t.Error(err, d.Trouble())
	}
	if s := db.Stats(); s.Made != 2 || s.Failures != 1 || s.Transactions != 3 || s.Records != int64(len(want)) {
		t.Errorf("%+v", s)
	}
	if got, err := readBack2(db, d); err != nil || !maps.Equal(got, want) {
		t.Errorf("at the end: %v, %d records, want %d", err, len(got), len(want))
	}
}

// readBack2 reads the file after its writer has closed it.
func readBack2(db *DB, d *Dir) (contents, error) {
	_ = db.Close()
	return readBack(d)
}

// A file that is removed, replaced or cut off while it is in use is made anew.
func TestFileInUseIsTampered(t *testing.T) {
	for name, tamper := range map[string]func(path string) error{
		"removed":   os.Remove,
		"cut off":   func(path string) error { return os.Truncate(path, 4096) },
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
		"replaced":  func(path string) error { return WriteFile(path, []byte("x"), 0o600) },
		"a link":    func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/dev/null", path)) },
		"not there": func(path string) error { return os.Rename(path, path+".moved") },
	} {
		d := openDir(t)
		db, want := fill(t, d, 2000)
		if err := tamper(d.File("test.db")); err != nil {
			t.Fatal(err)
		}
		changes := []Change{{"tasks", "new", []byte("x")}, {"tasks", "net\x00t00007", nil}}
		want.apply(changes)
		if err := db.Write(changes, want.all); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := readBack2(db, d); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %d records, want %d", name, err, len(got), len(want))
		}
	}
}

// A file that another program has open is not waited for without end.
func TestFileInUseElsewhere(t *testing.T) {
	d := openDir(t)
	db, _ := fill(t, d, 1)
	_ = db.Close()
	other, err := bbolt.Open(d.File("test.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := readBack(d); err == nil || !strings.Contains(err.Error(), "another program has") {
		t.Error(err)
	}
}

// A file of a newer version is not believed to be damaged.
func TestNewerFile(t *testing.T) {
	d := openDir(t)
	db, _ := fill(t, d, 1)
	db.total.Format = formatVersion + 1
	if err := db.Write([]Change{{"tasks", "x", []byte("x")}}, nil); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	if _, err := readBack(d); !errors.Is(err, ErrNewer) || strings.Contains(err.Error(), "corrupted") {
		t.Error(err)
	}
}

// What read refuses is its caller's error, and no damage.
func TestReadersRefusal(t *testing.T) {
	d := openDir(t)
	db, _ := fill(t, d, 3)
	_ = db.Close()
	no := errors.New("no")
	if err := NewDB(d, "test.db").Read(func(string, string, []byte) error { return no }); !errors.Is(err, no) ||
		strings.Contains(err.Error(), "corrupted") {
		t.Error(err)
	}
}

// Former files are kept, each under a name of its own.
func TestKeepAs(t *testing.T) {
	d := openDir(t)
	for i := range 3 {
		if err := os.WriteFile(d.File("test.db"), []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		to, err := d.KeepAs("test.db", "older")
		if text, _ := os.ReadFile(to); err != nil || len(text) != 1 || text[0] != byte(i) {
			t.Errorf("%s: %v %v", to, text, err)
		}
	}
}
