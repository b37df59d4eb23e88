//go:build !linux

package sysctl

// Set makes no settings: they are Linux'.
func Set(string, []Setting, func(Change)) (changed []string, err error) { return nil, nil }

// Changed finds none: nothing was changed.
func Changed([]Change) (ours []Change, others []string, err error) { return nil, nil, nil }

// PutBack has nothing to put back.
func PutBack([]Change) error { return nil }
