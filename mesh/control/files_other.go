//go:build !unix

package control

import "math"

// maxFiles returns how many files the process may open.
func maxFiles() int { return math.MaxInt }
