//go:build !unix

package store

import "os"

// lockFile does nothing where there is no flock: meshd runs on Linux.
func lockFile(*os.File) error { return nil }
