package config

import (
	"flag"
	"slices"
)

// reloadable are the settings that a running node takes over. Sockets, files, rules in
// the kernel or what other nodes know depend on the values of all others.
var reloadable = []string{
	"dns-clients", "join", "key-file", "log-level", "max-tasks", "reservation", "table-memory",
	"upstream",
}

// keyFile is the setting whose file may change while its name stays: whoever holds the
// keys finds out whether they changed.
const keyFile = "key-file"

// TakeOver returns the settings of a running node after it has read its configuration
// again: the receiver's, with those of next that a running node can take over, but for
// the keys. changed and waiting are the names of the settings that differ, sorted: those
// that were taken over, and those that wait for the next start.
func (s *Settings) TakeOver(next *Settings) (merged *Settings, changed, waiting []string) {
	m := *s
	m.Join, m.DNSClients, m.ClientRanges = next.Join, next.DNSClients, next.ClientRanges
	m.Upstream, m.Servers, m.DomainServers = next.Upstream, next.Servers, next.DomainServers
	m.MaxTasks, m.Reservation, m.TableMemory, m.LogLevel = next.MaxTasks, next.Reservation, next.TableMemory, next.LogLevel
	for _, name := range differing(&s.Config, &next.Config) {
		switch {
		case name == keyFile:
		case slices.Contains(reloadable, name):
			changed = append(changed, name)
		default:
			waiting = append(waiting, name)
		}
	}
	return &m, changed, waiting
}

// differing returns the names of the settings that differ, sorted.
func differing(a, b *Config) (names []string) {
	flags := func(c *Config) *flag.FlagSet {
		f := flag.NewFlagSet("", flag.ContinueOnError)
		c.RegisterFlags(f)
		return f
	}
	of := flags(b)
	flags(a).VisitAll(func(f *flag.Flag) {
		if f.Value.String() != of.Lookup(f.Name).Value.String() {
			names = append(names, f.Name)
		}
	})
	return names
}
