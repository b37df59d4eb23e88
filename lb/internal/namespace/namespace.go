// Package namespace runs code inside a network namespace that has a path.
package namespace
