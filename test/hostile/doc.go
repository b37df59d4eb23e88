// Package hostile says and does to three real daemons what would end, bend or
// use their hosts: packets of a peer that has the key, records with values that
// nobody may state, streams and questions without end, mistakes of people, damaged
// files, containers that mount what is not theirs. After each of them all must be
// as before. `make hostile` prints a line per case; docs/TESTING.md says how to
// write one.
package hostile
