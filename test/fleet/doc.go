// Package fleet runs the real meshd on the hosts of a [meshd/test/rig] rig,
// and what belongs to it: tasks that serve HTTP and UDP from namespaces of
// their own, DNS and HTTP clients inside those namespaces, meshctl.
package fleet
