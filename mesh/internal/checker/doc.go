// Package checker runs the health checks of a node's tasks and states what follows.
//
// It is told of the tasks as a source.Watcher and states verdicts to a source.Sink. What
// is to be run when is a scheduler, which has no goroutine and no clock; it belongs to the
// goroutine of Checker.Run, which all others ask by messages. Runs are made by goroutines
// that end with them, 64 for what goes to the network and 8 for programs (C7). Verdicts
// are stated by another one, so that nothing waits for a disk.
package checker
