// Package netns holds the tests that run several real meshd, each on a host of
// its own made of network namespaces, and do to them what the world does:
// kill, freeze, cut off, lose packets, mislead. They skip themselves where
// namespaces are not allowed.
package netns
