// Package hostchanges remembers what a node changed of its host, and how it was found:
// sysctls, hairpin mode of ports, rules in chains of others, and which driver programmed
// load balancing (N8).
//
// It owns the record and writes it from a goroutine of its own, so that the change of a
// setting does not wait for the disk. It changes nothing of the host itself.
package hostchanges

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"

	"meshd/lb/hostcheck"
	"meshd/lb/hostmend"
	"meshd/lb/sysctl"
)

// Record is what meshd changed of the host since it booted, and how that was found, for
// "meshd cleanup" to put back (N8). It is safe for concurrent use.
type Record struct {
	save  func(Saved) error // nil: nothing is saved
	fresh chan struct{}     // says that there is something to save; its capacity is 1

	mu      sync.Mutex             // guards the fields below, whose slices are replaced, never changed
	sysctls []sysctl.Change        // at most maxChanges
	ports   []hostmend.Port        // of bridges, put into hairpin mode; at most maxChanges
	rules   []hostcheck.AcceptRule // added to chains of others; at most maxRules
	driver  string                 // what has programmed load balancing; "": nothing that is left
	filed   bool                   // the data directory has a record
}

// maxChanges bounds each list: a host may have many interfaces. maxRules bounds the rules.
const (
	maxChanges = 4096
	maxRules   = 256
)

// Saved is a Record as the data directory keeps it. It counts for one boot and one network
// namespace only: others have settings of their own.
type Saved struct {
	Boot    string                 `json:"boot"`
	NetNS   string                 `json:"netns"`
	Changes []sysctl.Change        `json:"changes"`
	Ports   []hostmend.Port        `json:"ports,omitempty"`
	Rules   []hostcheck.AcceptRule `json:"lets,omitempty"`
	Driver  string                 `json:"driver,omitempty"`
}

// New returns the record of a former life of this boot and network namespace, or an empty
// one. save replaces what is saved; nil: nothing is.
func New(saved Saved, save func(Saved) error) *Record {
	r := &Record{save: save, fresh: make(chan struct{}, 1)}
	if saved.Here() {
		r.sysctls, r.ports, r.rules, r.driver, r.filed = saved.Changes, saved.Ports, saved.Rules, saved.Driver, true
	}
	return r
}

// savedHere returns an empty record of this boot and namespace.
func savedHere() Saved {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // empty where there is no Linux
	ns, _ := os.Readlink("/proc/self/ns/net")
	return Saved{Boot: strings.TrimSpace(string(boot)), NetNS: ns}
}

// Here reports whether a record is of this boot and network namespace.
func (s *Saved) Here() bool {
	now := savedHere()
	return now.Boot != "" && s.Boot == now.Boot && s.NetNS == now.NetNS
}

// Sysctl remembers a change of a setting. If the node had set the value that it found, what
// it found at first stays what is put back; if another program had changed the setting
// since, that program's value is.
func (r *Record) Sysctl(c sysctl.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := slices.IndexFunc(r.sysctls, func(o sysctl.Change) bool { return o.Key == c.Key })
	if at >= 0 && r.sysctls[at].Set == c.Found {
		c.Found, c.Dependents = r.sysctls[at].Found, r.sysctls[at].Dependents
	}
	r.sysctls = slices.DeleteFunc(slices.Clone(r.sysctls), func(o sysctl.Change) bool { return o.Key == c.Key })
	if c.Found != c.Set && len(r.sysctls) < maxChanges {
		r.sysctls = append(r.sysctls, c)
	}
	r.changed()
}

// Port remembers a port that was put into hairpin mode.
func (r *Record) Port(p hostmend.Port) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.ports, p) {
		r.ports = append(slices.Clone(r.ports), p)
		if more := len(r.ports) - maxChanges; more > 0 {
			r.ports = r.ports[more:] // the oldest: most likely their containers are gone
		}
	}
	r.changed()
}

// KeepPorts forgets ports of which no device is left: they went with their containers.
// Without any devices, since none could be read, it forgets none.
func (r *Record) KeepPorts(devices []hostcheck.Device) {
	if len(devices) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := slices.DeleteFunc(slices.Clone(r.ports), func(p hostmend.Port) bool {
		return !slices.ContainsFunc(devices, func(d hostcheck.Device) bool { return d.Name == p.Name })
	})
	if len(kept) < len(r.ports) {
		r.ports = kept
		r.changed()
	}
}

// SetDriver remembers what has programmed load balancing here; "": nothing of it is left.
func (r *Record) SetDriver(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.driver != name {
		r.driver = name
		r.changed()
	}
}

// Driver returns what has programmed load balancing here, in this life or a former one of
// this boot; "" if nothing of it is left.
func (r *Record) Driver() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.driver
}

// Ports returns the ports, which must not be changed.
func (r *Record) Ports() []hostmend.Port {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ports
}

// changed asks for a write.
func (r *Record) changed() {
	select {
	case r.fresh <- struct{}{}:
	default:
	}
}

// Sysctls returns the changes of settings, which must not be changed.
func (r *Record) Sysctls() []sysctl.Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sysctls
}

// Run saves each change until ctx ends.
func (r *Record) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.fresh:
			_ = r.Write() // the data directory remembers a failure, and has it written again
		}
	}
}

// Write saves the record. An empty one that was never saved makes no file.
func (r *Record) Write() error {
	saved := savedHere()
	r.mu.Lock()
	saved.Changes, saved.Ports, saved.Rules, saved.Driver = r.sysctls, r.ports, r.rules, r.driver
	empty := len(saved.Changes)+len(saved.Ports)+len(saved.Rules) == 0 && saved.Driver == "" && !r.filed
	r.filed = !empty
	r.mu.Unlock()
	if empty || r.save == nil {
		return nil
	}
	return r.save(saved)
}

// AddRules remembers rules that are about to be added to chains of others.
func (r *Record) AddRules(rules []hostcheck.AcceptRule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range rules {
		if !slices.ContainsFunc(r.rules, sameRule(l)) && len(r.rules) < maxRules {
			r.rules = append(slices.Clone(r.rules), l)
			r.changed()
		}
	}
}

// RemoveRules forgets rules that were taken out of these chains again.
func (r *Record) RemoveRules(rules []hostcheck.AcceptRule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = slices.DeleteFunc(slices.Clone(r.rules),
		func(o hostcheck.AcceptRule) bool { return slices.ContainsFunc(rules, sameRule(o)) })
	r.changed()
}

// sameRule finds a rule by its chain and what it matches.
func sameRule(l hostcheck.AcceptRule) func(o hostcheck.AcceptRule) bool {
	return func(o hostcheck.AcceptRule) bool { return o.ChainID() == l.ChainID() && slices.Equal(o.Match, l.Match) }
}

// Rules returns the rules, which must not be changed.
func (r *Record) Rules() []hostcheck.AcceptRule {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rules
}
