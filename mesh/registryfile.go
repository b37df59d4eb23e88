package mesh

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"meshd/mesh/config"
	"meshd/mesh/internal/registry"
	"meshd/mesh/internal/store"
)

// registered is what the data directory holds of former lives.
type registered struct {
	snapshot *registry.Snapshot
	leftOut  []string // what of it is not believed, for people
	// earlier says that an earlier version kept it, in tasks.json, and newer that the
	// store beside it is older than that: the earlier version has run since.
	earlier, newer bool
}

// readRegistry reads what former lives registered.
func readRegistry(dir *store.Dir, b registry.Bounds, now time.Time) (r registered, err error) {
	db := store.NewDB(dir, fileRegistry)
	if _, err := os.Lstat(dir.File(fileTasks)); errors.Is(err, fs.ErrNotExist) {
		r.snapshot, r.leftOut, err = registry.Read(db, b, now)
		return r, registryError(dir, fileRegistry, err)
	}
	r.earlier = true
	load := func(v any) error { return dir.Load(fileTasks, v) }
	if r.snapshot, r.leftOut, err = registry.ReadFile(load, b, now); err != nil {
		return r, registryError(dir, fileTasks, err)
	}
	if !db.Present() {
		return r, nil
	}
	inStore, leftOut, err := registry.Read(db, b, now)
	if err != nil {
		return r, registryError(dir, fileRegistry, err)
	}
	if inStore.Same(r.snapshot) { // the start that took it over was interrupted
		r.leftOut = leftOut
		return r, nil
	}
	r.newer = true
	return r, nil
}

// registryError says what to do about a file that meshd cannot have written.
func registryError(dir *store.Dir, file string, err error) error {
	if corrupt, ok := errors.AsType[*registry.CorruptError](err); ok {
		err = dir.Corrupted(file, corrupt.Err, "restore it from a backup, or move it away to start without what it held")
	}
	if many, ok := errors.AsType[*registry.TooManyError](err); ok {
		err = config.Invalid(many) // the file is well, and must not be moved away for it
	}
	return err
}

// keepFormer puts aside the files that the store takes the place of: before it is
// written (first), and after.
func (r *registered) keepFormer(dir *store.Dir, first bool) (kept string, err error) {
	switch {
	case first && r.newer:
		return dir.KeepAs(fileRegistry, "older")
	case !first && r.earlier:
		return dir.KeepAs(fileTasks, "migrated")
	}
	return "", nil
}

// takeOver writes the store, and keeps what it takes the place of.
func (n *opening) takeOver() error {
	older, err := n.saved.keepFormer(n.dir, true)
	if err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	changed, err := n.reg.Claim()
	if err == nil && changed {
		err = n.boxes.Save()
	}
	if err != nil {
		return err
	}
	kept, err := n.saved.keepFormer(n.dir, false)
	if err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	if kept != "" {
		n.log.Info("what an earlier version registered was taken over", "from", kept, "to", n.dir.File(fileRegistry))
	}
	if older != "" {
		n.log.Warn("an earlier version ran on this data directory since; what it registered counts, and what this one had "+
			"before is kept", "kept", older)
	}
	return nil
}
