package vm

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Image is what goes into the machine's first and only file system. The zero
// value is not usable; see [NewImage].
type Image struct {
	kernel  Kernel
	modules []string
	files   map[string]string // path in the machine → file here; the same file may be asked for twice
	order   []string          // the keys of files, as they came
	dirs    []string
}

// NewImage starts an image for a kernel, with the modules in names and all that
// they need, and init, a program that starts as process 1.
func NewImage(k Kernel, init string, names []string) (*Image, error) {
	modules, err := Modules(k.Tree, names)
	if err != nil {
		return nil, err
	}
	im := &Image{kernel: k, modules: modules, files: map[string]string{}}
	return im, im.AddProgram(InitPath, init)
}

// merged is the path of a file in a machine where /bin, /sbin and /lib* are
// links into /usr.
func merged(dst string) string {
	dst = path.Clean(dst)
	for _, top := range usrMerged() {
		if strings.HasPrefix(dst, top+"/") {
			return "/usr" + dst
		}
	}
	return dst
}

func usrMerged() []string { return []string{"/bin", "/sbin", "/lib", "/lib64"} }

// AddFile puts a file, or a directory with all below it, into the image.
func (im *Image) AddFile(dst, src string) error {
	dst = merged(dst)
	if !path.IsAbs(dst) {
		return fmt.Errorf("file %s=%s: the path in the machine must be absolute", dst, src)
	}
	s, err := os.Stat(src)
	switch {
	case err != nil:
		return err
	case s.IsDir():
		return im.addTree(dst, src)
	case !s.Mode().IsRegular():
		return fmt.Errorf("%s is neither a file nor a directory", src)
	}
	if old, ok := im.files[dst]; ok && merged(old) != merged(src) {
		return fmt.Errorf("%s cannot be both %s and %s", dst, old, src)
	} else if !ok {
		im.order = append(im.order, dst)
	}
	im.files[dst] = src
	return nil
}

// addTree puts a directory with all below it into the image. Symbolic links are
// followed to files, and those to directories left out.
func (im *Image) addTree(dst, src string) error {
	return filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		to := path.Join(dst, filepath.ToSlash(rel))
		if d.IsDir() {
			im.dirs = append(im.dirs, to)
			return nil
		}
		if s, err := os.Stat(p); err != nil || !s.Mode().IsRegular() {
			return err
		}
		return im.AddFile(to, p)
	})
}

// AddProgram puts a program and the shared libraries that it needs, at the
// paths that they have here, into the image.
func (im *Image) AddProgram(dst, src string) error {
	libs, err := libraries(src)
	if err != nil {
		return err
	}
	for _, lib := range libs {
		if err := im.AddFile(lib, lib); err != nil {
			return err
		}
	}
	return im.AddFile(dst, src)
}

// AddTool puts one of this machine's own tools, as found in PATH, into the
// image, at the path that it has here.
func (im *Image) AddTool(name string) error {
	file, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("tool %s for the machine: %w", name, err)
	}
	if file, err = filepath.Abs(file); err != nil {
		return err
	}
	return im.AddProgram(file, file)
}

// modulePath is where a module lies in the machine.
func modulePath(file string) string { return "/modules/" + filepath.Base(file) }

// Write writes the image, with the job in it, as an initramfs. The job's own
// list of modules is replaced by the image's.
func (im *Image) Write(w io.Writer, j Job) error {
	j.Modules = nil
	for _, m := range im.modules {
		j.Modules = append(j.Modules, modulePath(m))
	}
	orders, err := EncodeJob(j)
	if err != nil {
		return err
	}
	a := newArchive(w)
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/var/tmp", "/etc"} {
		a.dir(dir)
	}
	a.device("/dev/console", 5, 1)
	a.device("/dev/null", 1, 3)
	a.symlink("/var/run", "/run")
	for _, top := range usrMerged() {
		a.dir("/usr" + top)
		a.symlink(top, "usr"+top)
	}
	a.text(JobPath, string(orders))
	a.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n")
	a.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
	a.text("/etc/hosts", "127.0.0.1 localhost "+j.Hostname+"\n::1 localhost\n")
	a.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
	for _, dir := range im.dirs {
		a.dir(dir)
	}
	for _, m := range im.modules {
		addFile(a, modulePath(m), m)
	}
	for _, dst := range im.order {
		addFile(a, dst, im.files[dst])
	}
	return a.close()
}

// addFile copies a file; the archive keeps the first error.
func addFile(a *archive, dst, src string) {
	f, err := os.Open(src)
	if err == nil {
		defer f.Close()
		var s os.FileInfo
		if s, err = f.Stat(); err == nil {
			a.file(dst, uint32(s.Mode().Perm()), s.Size(), f)
		}
	}
	if a.err == nil {
		a.err = err
	}
}

// AddDir puts an empty directory into the image.
func (im *Image) AddDir(dst string) { im.dirs = append(im.dirs, merged(dst)) }
