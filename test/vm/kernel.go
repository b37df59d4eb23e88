package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Kernel is an unpacked kernel package.
type Kernel struct {
	Image string // the file to boot: boot/vmlinuz-VERSION
	Tree  string // its modules: lib/modules/VERSION
}

// metaPackage stands for Debian's newest kernel for virtual machines. It is
// small, and has all of IPVS and nf_tables as modules.
const metaPackage = "linux-image-cloud-amd64"

// OpenKernel finds the kernel in a directory into which one kernel package was
// unpacked.
func OpenKernel(dir string) (Kernel, error) {
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if len(images) != 1 {
		return Kernel{}, fmt.Errorf("%d files boot/vmlinuz-* in %s, want one: unpack a kernel package there (dpkg-deb -x)",
			len(images), dir)
	}
	version := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	for _, lib := range []string{"lib", "usr/lib"} {
		tree := filepath.Join(dir, lib, "modules", version)
		if _, err := os.Stat(tree); err == nil {
			return Kernel{Image: images[0], Tree: tree}, nil
		}
	}
	return Kernel{}, fmt.Errorf("no lib/modules/%s in %s: unpack the kernel package with its modules", version, dir)
}

// FindKernel returns the newest kernel in the cache directory, and downloads
// and unpacks one if there is none. Nothing is installed on the machine; the
// cache may be deleted at any time. tell receives a line for each slow step.
func FindKernel(ctx context.Context, cache string, tell func(string)) (Kernel, error) {
	dirs, _ := filepath.Glob(filepath.Join(cache, "linux-image-*"))
	slices.Sort(dirs)
	for _, dir := range slices.Backward(dirs) {
		if k, err := OpenKernel(dir); err == nil {
			return k, nil
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Kernel{}, err
	}
	dir, err := download(ctx, cache, tell)
	if err != nil {
		return Kernel{}, fmt.Errorf("get a kernel (or unpack one yourself and name it with -kernel DIR): %w", err)
	}
	return OpenKernel(dir)
}

// download fetches and unpacks a kernel into a directory of its own, which
// appears only when it is complete.
func download(ctx context.Context, cache string, tell func(string)) (string, error) {
	work, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	// Where apt downloads as its own user, that user must be able to write here.
	if err := os.Chmod(work, 0o777); err != nil { //nolint:gosec // for the moment of one download
		return "", err
	}
	name, err := kernelPackage(ctx, tell)
	if err != nil {
		return "", err
	}
	tell("downloading " + name)
	if _, err := output(ctx, work, "apt-get", "-qq", "download", name); err != nil {
		return "", err
	}
	debs, _ := filepath.Glob(filepath.Join(work, "*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages", name, len(debs))
	}
	tree := filepath.Join(work, "tree")
	if _, err := output(ctx, work, "dpkg-deb", "-x", debs[0], tree); err != nil {
		return "", err
	}
	to := filepath.Join(cache, strings.TrimSuffix(filepath.Base(debs[0]), ".deb"))
	if err := os.Rename(tree, to); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return to, nil
}

// kernelPackage resolves the name that changes with every kernel. Lists of
// packages that are missing are fetched once.
func kernelPackage(ctx context.Context, tell func(string)) (string, error) {
	list, err := output(ctx, "", "apt-cache", "depends", metaPackage)
	name, ok := dependsOnImage(list)
	if err == nil && ok {
		return name, nil
	}
	tell("fetching apt's lists of packages")
	if _, err := output(ctx, "", "apt-get", "-qq", "update"); err != nil {
		return "", err
	}
	if list, err = output(ctx, "", "apt-cache", "depends", metaPackage); err != nil {
		return "", err
	}
	if name, ok = dependsOnImage(list); !ok {
		return "", fmt.Errorf("apt knows no kernel that %s depends on", metaPackage)
	}
	return name, nil
}

// dependsOnImage finds the kernel in what apt-cache depends prints.
func dependsOnImage(list string) (string, bool) {
	for line := range strings.Lines(list) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + name, true
		}
	}
	return "", false
}

// output runs a host command and returns what it prints.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.String(), nil
}
