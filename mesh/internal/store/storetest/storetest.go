// Package storetest has a data directory in memory whose disk fails on demand, for
// tests of what uses package store.
package storetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// Dir is like a store.Dir, without a disk. The zero value is empty. Its methods are
// safe for concurrent use.
type Dir struct {
	mu     sync.Mutex // guards the fields below
	files  map[string][]byte
	fail   error
	writes int
}

// Fail makes every write fail with err from now on; nil: they succeed.
func (d *Dir) Fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

// Writes returns how many writes succeeded so far.
func (d *Dir) Writes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes
}

// Content returns what a file holds, nil if it is missing.
func (d *Dir) Content(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.files[name])
}

// File returns a path at which no file is.
func (d *Dir) File(name string) string { return "/nonexistent/storetest/" + name }

// Load is store.Dir's.
func (d *Dir) Load(name string, v any) error {
	b := d.Content(name)
	if b == nil {
		return nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return d.Corrupted(name, err, "restore it")
	}
	return nil
}

// Save is store.Dir's.
func (d *Dir) Save(name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return d.Replace(name, append(b, '\n'))
}

// Replace is store.Dir's.
func (d *Dir) Replace(name string, b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return fmt.Errorf("data-dir: %w", d.fail)
	}
	if d.files == nil {
		d.files = map[string][]byte{}
	}
	d.files[name] = slices.Clone(b)
	d.writes++
	return nil
}

// Corrupted is store.Dir's.
func (d *Dir) Corrupted(name string, err error, fix string) error {
	return fmt.Errorf("data-dir: %s is corrupted (%w) and was left as it is: %s", d.File(name), err, fix)
}
