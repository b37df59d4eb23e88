package vm

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// archive writes a cpio archive in the "newc" format, which the kernel unpacks
// into its first file system. Paths are absolute; directories above a path come
// by themselves. Two archives with the same contents are the same bytes: all
// files belong to root and have no date.
type archive struct {
	w     io.Writer
	ino   uint32
	pos   int64
	known map[string]bool // every path written
	err   error           // the first one; nothing is written after it
}

// File types in a mode, as in stat(2).
const (
	typeDir     = 0o040000
	typeChar    = 0o020000
	typeRegular = 0o100000
	typeLink    = 0o120000
)

const (
	cpioMagic   = "070701"
	cpioTrailer = "TRAILER!!!"
	maxCPIOFile = 1<<32 - 1 // the size has eight hexadecimal digits
)

func newArchive(w io.Writer) *archive {
	return &archive{w: w, known: map[string]bool{"/": true}}
}

// entry is what a header tells.
type entry struct {
	path         string
	mode         uint32 // with the type
	major, minor uint32 // of a device
	size         int64
}

// dir adds a directory unless it is there.
func (a *archive) dir(name string) {
	if name = path.Clean(name); a.known[name] {
		return
	}
	a.put(entry{path: name, mode: typeDir | 0o755}, strings.NewReader(""))
}

// file adds a regular file of exactly size bytes.
func (a *archive) file(name string, perm uint32, size int64, r io.Reader) {
	a.put(entry{path: name, mode: typeRegular | perm&0o7777, size: size}, r)
}

func (a *archive) text(name, text string) {
	a.file(name, 0o644, int64(len(text)), strings.NewReader(text))
}

func (a *archive) symlink(name, target string) {
	a.put(entry{path: name, mode: typeLink | 0o777, size: int64(len(target))}, strings.NewReader(target))
}

func (a *archive) device(name string, major, minor uint32) {
	a.put(entry{path: name, mode: typeChar | 0o600, major: major, minor: minor}, strings.NewReader(""))
}

func (a *archive) put(e entry, r io.Reader) {
	e.path = path.Clean(e.path)
	switch {
	case a.err != nil:
		return
	case !path.IsAbs(e.path):
		a.err = fmt.Errorf("file %q for the image: the path must be absolute", e.path)
		return
	case a.known[e.path]:
		a.err = fmt.Errorf("file %s is put into the image twice", e.path)
		return
	case e.size > maxCPIOFile:
		a.err = fmt.Errorf("file %s has %d bytes; an initramfs holds files of at most %d", e.path, e.size, maxCPIOFile)
		return
	}
	if up := path.Dir(e.path); !a.known[up] {
		a.dir(up)
	}
	a.known[e.path] = true
	a.header(e, strings.TrimPrefix(e.path, "/"))
	n, err := io.Copy(pos{a}, io.LimitReader(r, e.size+1))
	if err == nil && n != e.size {
		err = errors.New("it changed while it was read")
	}
	if err != nil && a.err == nil {
		a.err = fmt.Errorf("put %s into the image: %w", e.path, err)
	}
	a.pad()
}

// header writes the header and name of an entry.
func (a *archive) header(e entry, name string) {
	a.ino++
	links := uint32(1)
	if e.mode&typeDir == typeDir && e.mode&typeRegular != typeRegular {
		links = 2
	}
	a.write(cpioMagic)
	for _, field := range []uint32{
		a.ino, e.mode, 0, 0, links, 0, uint32(e.size), 0, 0, e.major, e.minor, uint32(len(name) + 1), 0,
	} {
		a.write(fmt.Sprintf("%08x", field))
	}
	a.write(name + "\x00")
	a.pad()
}

// close ends the archive; it does not close the writer below.
func (a *archive) close() error {
	a.header(entry{}, cpioTrailer)
	return a.err
}

// pad fills up to a multiple of four bytes.
func (a *archive) pad() { a.write("\x00\x00\x00"[:-a.pos&3]) }

func (a *archive) write(s string) { _, _ = io.WriteString(pos{a}, s) }

// pos counts what is written and remembers the first error.
type pos struct{ a *archive }

func (p pos) Write(b []byte) (int, error) {
	if p.a.err != nil {
		return 0, p.a.err
	}
	n, err := p.a.w.Write(b)
	p.a.pos += int64(n)
	p.a.err = err
	return n, err
}
