//go:build linux

// Command save makes a host of each kind that programs of this machine make, in
// namespaces of its own, and saves what they wrote into a directory, for hosts on
// which they do not run (hostkind.SavedEnv):
//
//	save DIRECTORY
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"meshd/test/hostkind"
	"meshd/test/rig"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: save DIRECTORY")
		os.Exit(2)
	}
	code, err := rig.Main(nil, func(w rig.World) int { return inside(w, os.Args[1]) })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func inside(w rig.World, dir string) int {
	for _, kind := range hostkind.All() {
		if !kind.HasPrograms() {
			continue
		}
		if err := saved(kind, filepath.Join(w.Dir, kind.Name), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return 0
}

// saved saves one kind. One whose programs are not installed is left out, with a
// message.
func saved(kind hostkind.Kind, logs, dir string) error {
	r, err := rig.New(logs)
	if err != nil {
		return err
	}
	defer r.Close()
	h, err := kind.AddHost(r, "host1")
	if errors.Is(err, hostkind.ErrMissing) {
		fmt.Fprintln(os.Stderr, err)
		return nil
	}
	if err == nil {
		err = kind.Save(h, dir)
	}
	return err
}
