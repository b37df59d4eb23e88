//go:build unix

package mesh

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is in the data directory is done: a directory in which others can put
// files is not used.
func TestDataDirOfOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for mode, says := range map[os.FileMode]string{
		0o777: "writable for all", 0o777 | os.ModeSticky: "writable for all",
		0o755: "", 0o700: "",
	} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		d, err := openDataDir(dir)
		if (err != nil) != (says != "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v", mode, err)
		}
		if err == nil {
			_ = d.close()
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Error(err)
	}
}

// A pipe in place of a file is not waited for.
func TestPipesAreNotRead(t *testing.T) {
	for _, name := range []string{fileNode, fileTasks, fileSandboxes, fileKeys, filePeers} {
		d := newDataDir(t.TempDir())
		if err := syscall.Mkfifo(d.file(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.plain(name); err == nil || !strings.Contains(err.Error(), "not a plain file") {
			t.Errorf("%s: %v", name, err)
		}
		if name == filePeers {
			continue // which is a cache
		}
		if err := d.load(name, &struct{}{}); err == nil || !strings.Contains(err.Error(), "not a plain file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nor is a file that meshd cannot have written, for its size: a hole of a terabyte
// takes no room on a disk.
func TestFilesThatAreTooLargeAreNotRead(t *testing.T) {
	for _, name := range []string{fileTasks, filePeers} {
		d := newDataDir(t.TempDir())
		if err := errors.Join(os.WriteFile(d.file(name), nil, 0o600),
			os.Truncate(d.file(name), maxSize(name)+1)); err != nil {
			t.Fatal(err)
		}
		if err := d.plain(name); err == nil || !strings.Contains(err.Error(), "has more than") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The keyring on disk is as secret as the key file.
func TestKeyringOnDiskIsPrivate(t *testing.T) {
	d := newDataDir(t.TempDir())
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	if err := os.WriteFile(d.file(fileKeys), []byte(`{"from":"","keys":["`+base64.StdEncoding.EncodeToString(key)+`"]}`),
		0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openKeystore(d, [][]byte{key}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(d.file(fileKeys), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openKeystore(d, [][]byte{key}); err == nil || !strings.Contains(err.Error(),
		"can be read or changed by others") {
		t.Error(err)
	}
}
