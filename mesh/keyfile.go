package mesh

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxKeyFile is more than keys and comments need, maxKeys more than any
// rotation does.
const (
	maxKeyFile = 64 << 10
	maxKeys    = 8
)

// readKeys reads the key file.
func (s *settled) readKeys() (err error) {
	if s.KeyFile != "" {
		s.keys, err = readKeyFile(s.KeyFile)
	}
	return err
}

// readKeyFile reads keys from a file that nobody else may read or change: who
// has the key is a member of the mesh.
func readKeyFile(path string) ([][]byte, error) {
	b, err := readPlain(path, maxKeyFile, func(info fs.FileInfo) error { return private(path, info) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key-file: %s does not exist; copy it from another host, or make the first one with: "+
			"meshctl keygen --out %s", path, path)
	}
	if err != nil {
		return nil, fmt.Errorf("key-file: %w", err)
	}
	keys, err := ParseKeys(string(b))
	if err != nil {
		return nil, fmt.Errorf("key-file %s: %w", path, err)
	}
	return keys, nil
}

// private says what is wrong with the file of a secret.
func private(path string, info fs.FileInfo) error {
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
	if uid, ok := ownerOf(info); ok && uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, who could change it; chown %d %s", path, uid, os.Geteuid(), real)
	}
	if dir, err := os.Stat(filepath.Dir(real)); err == nil && writableByAll(dir) {
		return fmt.Errorf("%s can be replaced by anybody, since its directory is writable for all; chmod o-w %s", path,
			filepath.Dir(real))
	}
	return nil
}

// writableByAll reports whether anybody can replace what is in a directory.
func writableByAll(dir fs.FileInfo) bool {
	return dir.Mode().Perm()&0o002 != 0 && dir.Mode()&fs.ModeSticky == 0
}

// ParseKeys reads keys in base64, one a line; empty lines and those that start
// with # are skipped. The first is the one to encrypt with.
func ParseKeys(text string) ([][]byte, error) {
	var keys [][]byte
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) { // editors of other systems put that there
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, err := base64.StdEncoding.DecodeString(line)
		if err != nil || !keySize(len(k)) {
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

func keySize(n int) bool { return n == 16 || n == 24 || n == 32 }
