package vm

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeKernel makes what an unpacked kernel package looks like.
func fakeKernel(t *testing.T) (dir string, k Kernel) {
	t.Helper()
	dir = t.TempDir()
	write(t, filepath.Join(dir, "boot", "vmlinuz-6.1"), nil)
	tree := filepath.Join(dir, "lib", "modules", "6.1")
	write(t, filepath.Join(tree, "modules.builtin"), nil)
	write(t, filepath.Join(tree, "kernel", "a.ko"), modinfo("depends=b\x00"))
	write(t, filepath.Join(tree, "kernel", "b.ko"), modinfo("depends=\x00"))
	k, err := OpenKernel(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, k
}

func TestImage(t *testing.T) {
	dir, k := fakeKernel(t)
	for name, text := range map[string]string{"init": "#!init", "prog": "#!prog", "data/one": "1", "data/sub/two": "2"} {
		write(t, filepath.Join(dir, filepath.FromSlash(name)), []byte(text))
	}
	im, err := NewImage(k, filepath.Join(dir, "init"), []string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	for dst, src := range map[string]string{"/bin/prog": "prog", "/work/testdata": "data"} {
		if err := im.AddFile(dst, filepath.Join(dir, src)); err != nil {
			t.Fatal(err)
		}
	}
	im.AddDir("/sbin/empty")
	var one, two bytes.Buffer
	j := Job{Hostname: "h", Programs: []Run{{Path: "/bin/prog", Dir: "/work", Timeout: time.Second}}}
	if err := im.Write(&one, j); err != nil {
		t.Fatal(err)
	}
	if err := im.Write(&two, j); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Errorf("the same image written twice differs, or %v", err)
	}
	_, files := unpack(t, one.Bytes())
	for name, want := range map[string]string{
		"init": "#!init", "usr/bin/prog": "#!prog", "work/testdata/one": "1", "work/testdata/sub/two": "2",
		"bin": "usr/bin", "usr/sbin/empty": "",
	} {
		if got, ok := files[name]; !ok || got.data != want {
			t.Errorf("%s: got %q (there: %v), want %q", name, got.data, ok, want)
		}
	}
	got, err := DecodeJob([]byte(files["job.json"].data))
	if err != nil || !slices.Equal(got.Modules, []string{"/modules/b.ko", "/modules/a.ko"}) {
		t.Errorf("modules %v, %v", got.Modules, err)
	}
	if files["modules/a.ko"].data != string(modinfo("depends=b\x00")) {
		t.Error("module a is not itself")
	}
}

func TestImageRefuses(t *testing.T) {
	dir, k := fakeKernel(t)
	write(t, filepath.Join(dir, "one"), nil)
	write(t, filepath.Join(dir, "two"), nil)
	im, err := NewImage(k, filepath.Join(dir, "one"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for want, add := range map[string]func() error{
		"absolute":       func() error { return im.AddFile("x", filepath.Join(dir, "one")) },
		"no such file":   func() error { return im.AddFile("/x", filepath.Join(dir, "none")) },
		"cannot be both": func() error { return im.AddFile("/init", filepath.Join(dir, "two")) },
		"neither a file": func() error { return im.AddFile("/x", os.DevNull) },
		"tool no-such":   func() error { return im.AddTool("no-such-tool-anywhere") },
	} {
		if err := add(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := im.AddFile("/init", filepath.Join(dir, "one")); err != nil {
		t.Errorf("the same file again: %v", err)
	}
	if err := im.Write(&bytes.Buffer{}, Job{}); err == nil {
		t.Error("an image without programs was written")
	}
	if _, err := NewImage(k, filepath.Join(dir, "one"), []string{"c"}); err == nil {
		t.Error("a module that is not there was accepted")
	}
}

func TestOpenKernel(t *testing.T) {
	dir, k := fakeKernel(t)
	if filepath.Base(k.Image) != "vmlinuz-6.1" || filepath.Base(k.Tree) != "6.1" {
		t.Errorf("got %+v", k)
	}
	write(t, filepath.Join(dir, "boot", "vmlinuz-6.2"), nil)
	if _, err := OpenKernel(dir); err == nil || !strings.Contains(err.Error(), "2 files") {
		t.Errorf("two kernels: %v", err)
	}
	if _, err := OpenKernel(t.TempDir()); err == nil || !strings.Contains(err.Error(), "dpkg-deb -x") {
		t.Errorf("no kernel: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "boot", "vmlinuz-6.1")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKernel(dir); err == nil || !strings.Contains(err.Error(), "lib/modules/6.2") {
		t.Errorf("no modules: %v", err)
	}
}

func TestKernelThatIsCachedIsNotDownloaded(t *testing.T) {
	dir, _ := fakeKernel(t)
	cache := t.TempDir()
	for _, name := range []string{"linux-image-6.1.0-1-cloud_1_amd64", "linux-image-6.1.0-2-cloud_1_amd64"} {
		if err := os.CopyFS(filepath.Join(cache, name), os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	}
	k, err := FindKernel(t.Context(), cache, func(s string) { t.Errorf("it went on to be %s", s) })
	if err != nil || !strings.Contains(k.Image, "6.1.0-2") {
		t.Errorf("got %+v, %v", k, err)
	}
}

func TestPackageThatCarriesTheKernel(t *testing.T) {
	list := "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Suggests: linux-doc\n"
	if name, ok := dependsOnImage(list); !ok || name != "linux-image-6.1.0-56-cloud-amd64" {
		t.Errorf("got %q, %v", name, ok)
	}
	if name, ok := dependsOnImage("<linux-image-cloud-amd64>\n"); ok {
		t.Errorf("got %q of nothing", name)
	}
}

// A shell that runs here needs the loader, or is static.
func TestLibraries(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skipf("no shell here: %v", err)
	}
	libs, err := libraries(sh)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(sh)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	needed, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range needed {
		if !slices.ContainsFunc(libs, func(path string) bool { return filepath.Base(path) == name }) {
			t.Errorf("%s is not in %v", name, libs)
		}
	}
	script := filepath.Join(t.TempDir(), "script")
	write(t, script, []byte("#!/bin/sh\n"))
	if libs, err := libraries(script); err != nil || len(libs) > 0 {
		t.Errorf("a script: %v, %v", libs, err)
	}
	if _, err := search("libnowhere.so.9", libraryDirs()); err == nil ||
		!strings.Contains(err.Error(), "libnowhere.so.9 is nowhere") {
		t.Errorf("a library that is missing: %v", err)
	}
}
