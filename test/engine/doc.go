// Package engine tests the source of tasks that are containers against a real engine:
// its own dockerd, with its own files and socket, in a network namespace of its own.
package engine
