package keys

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

// FileName is the file of the data directory that holds the keyring as the mesh last
// changed it.
const FileName = "keys.json"

// Disk keeps the file; store.Dir is one.
type Disk interface {
	File(name string) string
	Load(name string, v any) error
	Save(name string, v any) error
	Corrupted(name string, err error, fix string) error
}

// Ring is the part of memberlist's keyring that is used here. It is safe for
// concurrent use.
type Ring interface {
	GetKeys() [][]byte // the primary first; not to be changed
	AddKey(key []byte) error
	UseKey(key []byte) error
	RemoveKey(key []byte) error
}

// Store holds the keyring that the node starts with, and keeps on disk what the mesh
// changes of it (G9). The configuration wins over a stale file: the file counts only
// as long as the key file is the one that it was made from. Its methods are safe for
// concurrent use.
type Store struct {
	disk Disk

	changing sync.Mutex // held over a change of the ring and its way to the disk

	mu         sync.Mutex // guards the fields below
	file       savedKeys
	configured [][]byte // what the key file held when it was read last
	unread     error    // why it could not be read then
	taken      string   // From of the key file that Reload took over, until the mesh changes the keys again
}

// savedKeys is the file.
type savedKeys struct {
	From string   `json:"from"` // hash of the key file's keys
	Keys [][]byte `json:"keys"` // the primary first
}

// Open reads the keyring of the former life. configured are the keys of the key file;
// without any, gossip is not encrypted. A file that holds no keyring is an error that
// says what to do.
func Open(disk Disk, configured [][]byte) (*Store, error) {
	k := &Store{disk: disk}
	from := hashOf(configured)
	if err := disk.Load(FileName, &k.file); err != nil {
		return nil, err
	}
	if info, err := os.Stat(disk.File(FileName)); err == nil {
		if err := checkPrivate(disk.File(FileName), info); err != nil {
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
		if !validSize(len(key)) {
			return nil, disk.Corrupted(FileName, fmt.Errorf("key %d has %d bytes", i+1, len(key)),
				"move it away to start with --key-file alone")
		}
	}
	if n := len(k.file.Keys); n > maxKeys {
		return nil, disk.Corrupted(FileName, fmt.Errorf("it holds %d keys, at most %d", n, maxKeys),
			"move it away to start with --key-file alone")
	}
	if len(configured) > 0 && len(k.file.Keys) == 0 {
		return nil, disk.Corrupted(FileName, errors.New("it holds no key"), "move it away to start with --key-file alone")
	}
	k.configured = configured
	return k, nil
}

// hashOf is a hash of the keys of a key file.
func hashOf(configured [][]byte) string {
	h := sha256.New()
	for _, key := range configured {
		h.Write(key)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// All returns the keys, the primary first.
func (k *Store) All() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.file.Keys)
}

// Save writes the keyring again, if there is one.
func (k *Store) Save() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.file.Keys) == 0 {
		return nil
	}
	return k.disk.Save(FileName, k.file)
}

// keep makes keys those of the store, and writes them.
func (k *Store) keep(keys [][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.file.Keys, k.taken = keys, ""
	return k.disk.Save(FileName, k.file)
}

// change installs, uses or removes a key and keeps what the ring holds then. A change
// of nothing writes nothing, so it may be repeated at will.
func (k *Store) change(ring Ring, op string, key []byte) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	before := slices.Clone(ring.GetKeys())
	at := slices.IndexFunc(before, func(have []byte) bool { return bytes.Equal(have, key) })
	var err error
	switch {
	case op == opInstall && at >= 0, op == opUse && at == 0, op == opRemove && at < 0:
		return nil
	case op == opInstall && len(before) >= maxKeys:
		return fmt.Errorf("it has %d keys already; remove one that is not in use", maxKeys)
	case op == opInstall:
		err = ring.AddKey(bytes.Clone(key))
	case at < 0:
		return fmt.Errorf("it has no key %s", control.KeyID(key))
	case op == opUse:
		err = ring.UseKey(key)
	case at == 0:
		return errors.New("it encrypts with that key; use another one first")
	case op == opRemove:
		err = ring.RemoveKey(key)
	default:
		return errors.New("unknown operation")
	}
	if err != nil {
		return err
	}
	return k.keep(slices.Clone(ring.GetKeys()))
}

// Difference says how the keys in use differ from those of the key file, whose path
// is file, "" if they do not: they do after a rotation, until the file is replaced.
func (k *Store) Difference(file string) string {
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
			"the keys of meshctl key ls into the file, or remove from the mesh what is not to be there, with meshctl key "+
			"remove", file, idsOf(now), idsOf(k.configured))
	}
	return fmt.Sprintf("keys: the mesh has changed them since %s was written: in use is key %s, first in the file is "+
		"%s. Put the keys of meshctl key ls into the file: it is what a new host, or this one without its data directory, "+
		"starts with",
		file, control.KeyID(now[0]), control.KeyID(k.configured[0]))
}

// idsOf names keys for people.
func idsOf(keys [][]byte) string {
	ids := make([]string, len(keys))
	for i, key := range keys {
		ids[i] = control.KeyID(key)
	}
	return strings.Join(ids, ", ")
}

// Look reads the key file again while it differs from the keys in use, since somebody
// may have replaced it. Nothing but Difference changes by that.
func (k *Store) Look(file string) {
	if k.Difference(file) == "" {
		return
	}
	keys, err := ReadFile(file)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unread = err; err == nil {
		k.configured = keys
	}
}

// Reload takes over the keys of the key file if they have changed since it was read.
// Keys that the ring lacks are added to it, so that a file that is distributed to all
// hosts does what meshctl key install does. A file that is as it was brings no key
// back that the mesh has removed since. Which key encrypts, and which ones are removed,
// is decided for all nodes at once (G9); a node that is alone cuts no other off, and
// uses the file's first key. changed reports whether the ring is another one now, also
// with an error.
func (k *Store) Reload(ring Ring, keys [][]byte, alone bool) (changed bool, err error) {
	from := hashOf(keys)
	k.mu.Lock()
	asRead, taken := k.file.From == from, k.taken == from
	k.mu.Unlock()
	if asRead && !taken {
		return false, nil
	}
	for _, key := range keys {
		if slices.ContainsFunc(ring.GetKeys(), func(have []byte) bool { return bytes.Equal(have, key) }) {
			continue
		}
		if err := k.change(ring, opInstall, key); err != nil {
			return changed, fmt.Errorf("key %s: %w", control.KeyID(key), err)
		}
		changed = true
	}
	if alone && !bytes.Equal(ring.GetKeys()[0], keys[0]) {
		if err := k.change(ring, opUse, keys[0]); err != nil {
			return changed, fmt.Errorf("key %s: %w", control.KeyID(keys[0]), err)
		}
		changed = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.configured, k.unread, k.taken, k.file.From = keys, nil, from, from
	if asRead {
		return changed, nil
	}
	return changed, k.disk.Save(FileName, k.file)
}
