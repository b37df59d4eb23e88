// Package store keeps a process's files in one directory that it locks: files are
// read only if they are plain and of a plausible size, and replaced atomically. It
// remembers which write failed and which one takes long, and a Keeper repairs a
// directory that was removed and writes again what could not be written (N3).
//
// It owns the lock, the temporary files and the memory of failures. It knows no
// content: what a file means, which ones there are and how each is checked is its
// owner's. It imports nothing of ours and touches nothing outside its directory, but
// for ReadPlain and WriteFile, which take any path.
package store
