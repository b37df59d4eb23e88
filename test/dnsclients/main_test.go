//go:build linux

package dnsclients

// This file owns the entry: it enters namespaces, or is the client of Go's resolver.

import (
	"os"
	"testing"

	"meshd/test/fleet"
	"meshd/test/rig"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == goArg {
		os.Exit(goClient(os.Args[2:]))
	}
	fleet.ServeIfAsked()
	os.Exit(rig.TestMain(fleet.Build, m.Run))
}
