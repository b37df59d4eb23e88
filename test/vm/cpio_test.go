package vm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
)

// unpacked is one file of an archive, as read back.
type unpacked struct {
	mode         uint32
	major, minor uint32
	links        uint32
	data         string
}

// unpack reads an archive in the newc format.
func unpack(t *testing.T, b []byte) (names []string, files map[string]unpacked) {
	t.Helper()
	files = map[string]unpacked{}
	r := bytes.NewReader(b)
	take := func(n int) string {
		out := make([]byte, n)
		if _, err := io.ReadFull(r, out); err != nil {
			t.Fatalf("archive ends early: %v", err)
		}
		return string(out)
	}
	align := func() { take(r.Len() & 3) }
	for {
		if magic := take(6); magic != "070701" {
			t.Fatalf("magic %q", magic)
		}
		var f [13]uint32
		for i := range f {
			v, err := strconv.ParseUint(take(8), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			f[i] = uint32(v)
		}
		name := strings.TrimSuffix(take(int(f[11])), "\x00")
		align()
		data := take(int(f[6]))
		align()
		if name == "TRAILER!!!" {
			if r.Len() != 0 {
				t.Errorf("%d bytes follow the trailer", r.Len())
			}
			return names, files
		}
		names = append(names, name)
		files[name] = unpacked{mode: f[1], links: f[4], major: f[9], minor: f[10], data: data}
	}
}

func TestArchiveRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	a := newArchive(&buf)
	a.text("/etc/hosts", "127.0.0.1 localhost\n")
	a.dir("/etc") // there already
	a.file("/usr/bin/tool", 0o755, 5, strings.NewReader("12345"))
	a.symlink("/bin", "usr/bin")
	a.device("/dev/null", 1, 3)
	a.file("/empty", 0o600, 0, strings.NewReader(""))
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	names, files := unpack(t, buf.Bytes())
	if want := "etc etc/hosts usr usr/bin usr/bin/tool bin dev dev/null empty"; strings.Join(names, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(names, " "), want)
	}
	for name, want := range map[string]unpacked{
		"etc":          {mode: 0o040755, links: 2},
		"etc/hosts":    {mode: 0o100644, links: 1, data: "127.0.0.1 localhost\n"},
		"usr/bin/tool": {mode: 0o100755, links: 1, data: "12345"},
		"bin":          {mode: 0o120777, links: 1, data: "usr/bin"},
		"dev/null":     {mode: 0o020600, links: 1, major: 1, minor: 3},
		"empty":        {mode: 0o100600, links: 1},
	} {
		if files[name] != want {
			t.Errorf("%s: got %+v, want %+v", name, files[name], want)
		}
	}
}

// The bytes as Documentation/driver-api/early-userspace/buffer-format.rst of
// the kernel describes them.
func TestArchiveBytes(t *testing.T) {
	var buf bytes.Buffer
	a := newArchive(&buf)
	a.file("/f", 0o644, 3, strings.NewReader("abc"))
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	want := "070701" + "00000001" + "000081a4" + "00000000" + "00000000" + "00000001" + "00000000" + "00000003" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000002" + "00000000" + "f\x00" + "abc\x00" +
		"070701" + "00000002" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "0000000b" + "00000000" + "TRAILER!!!\x00" + "\x00\x00\x00"
	if buf.String() != want {
		t.Errorf("got\n%s\nwant\n%s", hex.Dump(buf.Bytes()), hex.Dump([]byte(want)))
	}
}

func TestArchiveRefuses(t *testing.T) {
	broken := errors.New("the disk is broken")
	for want, put := range map[string]func(*archive){
		"absolute":       func(a *archive) { a.text("etc/hosts", "") },
		"twice":          func(a *archive) { a.text("/a", ""); a.text("/a", "") },
		"changed":        func(a *archive) { a.file("/a", 0o644, 5, strings.NewReader("1234")) },
		"it changed":     func(a *archive) { a.file("/a", 0o644, 3, strings.NewReader("1234")) },
		"at most":        func(a *archive) { a.file("/a", 0o644, 1<<32, strings.NewReader("")) },
		broken.Error():   func(a *archive) { a.file("/a", 0o644, 1, io.MultiReader(fail{broken})) },
		"put /b/c into ": func(a *archive) { a.file("/b/c", 0o644, 1, strings.NewReader("")); a.text("/never", "") },
	} {
		a := newArchive(io.Discard)
		put(a)
		if err := a.close(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
	a := newArchive(full{})
	a.text("/a", "")
	if err := a.close(); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("a full disk: %v", err)
	}
}

type fail struct{ err error }

func (f fail) Read([]byte) (int, error) { return 0, f.err }

type full struct{}

func (full) Write([]byte) (int, error) { return 0, fmt.Errorf("no space left") }
