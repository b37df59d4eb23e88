package keys

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"meshd/mesh/internal/store"
)

// The bounds of a key file: more than keys and comments need, and more keys than any
// rotation does.
const (
	maxFileSize = 64 << 10 // bytes
	maxKeys     = 8
)

// ReadFile reads keys from a file that only its owner, root or this process's user,
// may read or change: whoever has a key is a member of the mesh. The error names the
// file and what to do.
func ReadFile(path string) ([][]byte, error) {
	b, err := store.ReadPlain(path, maxFileSize, func(info fs.FileInfo) error { return checkPrivate(path, info) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key-file: %s does not exist; copy it from another host, or make the first one with: "+
			"meshctl keygen --out %s", path, path)
	}
	if err != nil {
		return nil, fmt.Errorf("key-file: %w", err)
	}
	keys, err := Parse(string(b))
	if err != nil {
		return nil, fmt.Errorf("key-file %s: %w", path, err)
	}
	return keys, nil
}

// checkPrivate refuses a file for a secret that other users could read or change.
func checkPrivate(path string, info fs.FileInfo) error {
	real := path
	if to, err := filepath.EvalSymlinks(path); err == nil {
		real = to
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file; give the file with the keys", path)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return fmt.Errorf("%s can be read or changed by others than its owner (mode %04o); make another key if somebody "+
			"may have read it, and: chmod 600 %s", path, m, real)
	}
	if uid, ok := store.OwnerOf(info); ok && uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, who could change it; chown %d %s", path, uid, os.Geteuid(), real)
	}
	if dir, err := os.Stat(filepath.Dir(real)); err == nil && writableByAll(dir) {
		return fmt.Errorf("%s can be replaced by anybody, since its directory is writable for all; chmod o-w %s", path,
			filepath.Dir(real))
	}
	return nil
}

// writableByAll reports whether every user can replace the files of a directory.
func writableByAll(dir fs.FileInfo) bool {
	return dir.Mode().Perm()&0o002 != 0 && dir.Mode()&fs.ModeSticky == 0
}

// Parse reads keys of 16, 24 or 32 bytes in base64, one a line; empty lines and those
// that start with # are skipped. The first key is the one to encrypt with. There are
// one to eight keys if there is no error.
func Parse(text string) ([][]byte, error) {
	var keys [][]byte
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) { // some editors put a byte order mark there
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, err := base64.StdEncoding.DecodeString(line)
		if err != nil || !validSize(len(k)) {
			return nil, fmt.Errorf("line %d is not a base64 key of 16, 24 or 32 bytes; make one with: meshctl keygen", n)
		}
		if keys = append(keys, k); len(keys) > maxKeys {
			return nil, fmt.Errorf("it holds more than %d keys; keep those that are in use", maxKeys)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no key; make one with: meshctl keygen")
	}
	return keys, nil
}

// validSize reports whether a key may have n bytes: those of AES.
func validSize(n int) bool { return n == 16 || n == 24 || n == 32 }
