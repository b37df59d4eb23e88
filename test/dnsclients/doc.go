// Package dnsclients holds the tests of meshd's name server with the resolvers
// that programs really use: those of glibc, musl, Go, c-ares, Node and unbound.
// Each runs in a network and a mount namespace of its own with a resolv.conf
// that names a real meshd, behind which stands an upstream that misbehaves in
// the ways of real ones. `make dns-clients` prints the table of cases and
// clients.
package dnsclients
