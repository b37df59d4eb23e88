package mesh

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"meshd/mesh/control"
)

// keystore holds the keyring that the node starts with, and keeps what the
// mesh changed of it (G9). The configuration wins over a stale file: keys.json
// counts only as long as the key file is the one it was made from.
type keystore struct {
	dir *dataDir

	changing sync.Mutex // held over a change of the ring and its way to the disk

	mu         sync.Mutex // guards what follows
	file       savedKeys
	configured [][]byte // what the key file held at the latest look
	unread     error    // of that look
	taken      string   // From of the file that reload took over, until the mesh changes the keys again
}

type savedKeys struct {
	From string   `json:"from"` // hash of the key file's keys
	Keys [][]byte `json:"keys"` // the primary first
}

func openKeystore(dir *dataDir, configured [][]byte) (*keystore, error) {
	k := &keystore{dir: dir}
	from := fromOf(configured)
	if err := dir.load(fileKeys, &k.file); err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir.file(fileKeys)); err == nil {
		if err := private(dir.file(fileKeys), info); err != nil {
			return nil, fmt.Errorf("data-dir: %w", err)
		}
	}
	if k.file.From != from {
		k.file = savedKeys{From: from, Keys: configured}
	}
	if len(configured) == 0 {
		k.file.Keys = nil
	}
	for i, key := range k.file.Keys {
		if !keySize(len(key)) {
			return nil, dir.corrupted(fileKeys, fmt.Errorf("key %d has %d bytes", i+1, len(key)),
				"move it away to start with --key-file alone")
		}
	}
	if n := len(k.file.Keys); n > maxKeys {
		return nil, dir.corrupted(fileKeys, fmt.Errorf("it holds %d keys, at most %d", n, maxKeys),
			"move it away to start with --key-file alone")
	}
	if len(configured) > 0 && len(k.file.Keys) == 0 {
		return nil, dir.corrupted(fileKeys, errors.New("it holds no key"), "move it away to start with --key-file alone")
	}
	k.configured = configured
	return k, nil
}

// fromOf identifies the keys of a key file.
func fromOf(configured [][]byte) string {
	h := sha256.New()
	for _, key := range configured {
		h.Write(key)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (k *keystore) all() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.file.Keys)
}

// save writes the keyring again, if the mesh ever changed it.
func (k *keystore) save() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.file.Keys) == 0 {
		return nil
	}
	return k.dir.save(fileKeys, k.file)
}

func (k *keystore) keep(keys [][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.file.Keys, k.taken = keys, ""
	return k.dir.save(fileKeys, k.file)
}

// keyRing is the part of memberlist's keyring that is used here.
type keyRing interface {
	GetKeys() [][]byte // the primary first; not to be changed
	AddKey(key []byte) error
	UseKey(key []byte) error
	RemoveKey(key []byte) error
}

// change installs, uses or removes a key and keeps what the ring holds then. A
// change that changes nothing writes nothing, so it may be repeated at will.
func (k *keystore) change(ring keyRing, op string, key []byte) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	before := slices.Clone(ring.GetKeys())
	at := slices.IndexFunc(before, func(have []byte) bool { return bytes.Equal(have, key) })
	var err error
	switch {
	case op == keyInstall && at >= 0, op == keyUse && at == 0, op == keyRemove && at < 0:
		return nil
	case op == keyInstall && len(before) >= maxKeys:
		return fmt.Errorf("it has %d keys already; remove one that is not in use", maxKeys)
	case op == keyInstall:
		err = ring.AddKey(bytes.Clone(key))
	case at < 0:
		return fmt.Errorf("it has no key %s", control.KeyID(key))
	case op == keyUse:
		err = ring.UseKey(key)
	case at == 0:
		return errors.New("it encrypts with that key; use another one first")
	case op == keyRemove:
		err = ring.RemoveKey(key)
	default:
		return errors.New("unknown operation")
	}
	if err != nil {
		return err
	}
	return k.keep(slices.Clone(ring.GetKeys()))
}

// differs says how the keys in use differ from the key file's: after a
// rotation, until the file is replaced.
func (k *keystore) differs(file string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.file.Keys
	switch {
	case len(k.configured) == 0 || len(now) == 0 || k.unread == nil && slices.EqualFunc(now, k.configured, bytes.Equal):
		return ""
	case k.unread != nil:
		return fmt.Sprintf("keys: the mesh has changed them, and this node could not start with the key file as it is "+
			"now: %v", k.unread)
	}
	if bytes.Equal(now[0], k.configured[0]) {
		return fmt.Sprintf("keys: %s does not hold those that this node has by now: it has %s, in the file are %s. Put "+
			"the keys of meshctl key ls into the file, or remove from the mesh what is not to be there, with meshctl key remove", file, keyIDs(now), keyIDs(k.configured))
	}
	return fmt.Sprintf("keys: the mesh has changed them since %s was written: in use is key %s, first in the file is "+
		"%s. Put the keys of meshctl key ls into the file: it is what a new host, or this one without its data directory, "+
		"starts with",
		file, control.KeyID(now[0]), control.KeyID(k.configured[0]))
}

// keyIDs names keys for people.
func keyIDs(keys [][]byte) string {
	ids := make([]string, len(keys))
	for i, key := range keys {
		ids[i] = control.KeyID(key)
	}
	return strings.Join(ids, ", ")
}

// look reads the key file again while it is said to differ: somebody may have
// replaced it, and need not restart this node for that.
func (k *keystore) look(file string) {
	if k.differs(file) == "" {
		return
	}
	keys, err := readKeyFile(file)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unread = err; err == nil {
		k.configured = keys
	}
}
