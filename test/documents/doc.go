// Package documents executes the documents: every command of the README, of
// docs/OPERATIONS.md and of the helps of meshd and meshctl, every request of
// docs/API.md, and every file under examples, as they stand there.
//
// Each runs on an empty host: a network namespace with mounts and a name of its
// own, where /etc is a copy, and /etc/meshd, /var/lib, /run, /root, /tmp and
// /usr/local are empty, so that the paths of the documents are the ones that are
// used. Blocks are pasted whole, once into "bash -e" and once into an interactive
// shell that has all lines at once.
//
// What cannot be run there is on a list with its reason. A command that is new in
// a document is run; an entry for one that is in no document any more fails.
package documents
