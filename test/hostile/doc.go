// Package hostile attacks three real daemons: with packets of a peer that has the
// key, records with values that no node may state, streams and questions without
// end, mistakes of people, damaged files, and containers that mount files of the
// host. After each attack all must be as before. `make hostile` prints a line per
// case; docs/TESTING.md says how to write one.
package hostile
