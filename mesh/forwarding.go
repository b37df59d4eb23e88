package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"meshd/lb/hostcheck"
	"meshd/lb/hostmend"
	"meshd/lb/nft"
	"meshd/mesh/store"
)

// hosting says what a balancer may do to its host, and who is told of it.
type hosting struct {
	forward  bool                   // make it forward packets
	onSysctl func(nft.SysctlChange) // told of each setting that was changed; may be nil
	rules    nft.Listener           // hears of changes of the ruleset; may be nil
}

// sysctls are the settings of the host that meshd changed since it booted, and
// how they were found: cleanup puts them back (N8). It is safe for concurrent
// use.
type sysctls struct {
	save  func(savedSysctls) error // may be nil
	fresh chan struct{}            // capacity 1: there is something to save

	mu     sync.Mutex // guards what follows
	all    []nft.SysctlChange
	ports  []hostmend.Port        // of bridges, put into hairpin mode
	lets   []hostcheck.AcceptRule // rules in chains of others
	driver string                 // what has programmed load balancing here; "": nothing that is left
	filed  bool                   // the data directory has a record
}

// savedSysctls is what the data directory remembers of them. Another boot, and
// another network namespace, have settings of their own.
type savedSysctls struct {
	Boot    string                 `json:"boot"`
	NetNS   string                 `json:"netns"`
	Changes []nft.SysctlChange     `json:"changes"`
	Ports   []hostmend.Port        `json:"ports,omitempty"`
	Lets    []hostcheck.AcceptRule `json:"lets,omitempty"`
	Driver  string                 `json:"driver,omitempty"` // that has programmed load balancing
}

// newSysctls goes on where another life of this boot ended.
func newSysctls(saved savedSysctls, save func(savedSysctls) error) *sysctls {
	s := &sysctls{save: save, fresh: make(chan struct{}, 1)}
	if saved.here() {
		s.all, s.ports, s.lets, s.driver, s.filed = saved.Changes, saved.Ports, saved.Lets, saved.Driver, true
	}
	return s
}

// sysctlsHere returns an empty record of this boot and namespace.
func sysctlsHere() savedSysctls {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // nowhere: not Linux
	ns, _ := os.Readlink("/proc/self/ns/net")
	return savedSysctls{Boot: strings.TrimSpace(string(boot)), NetNS: ns}
}

// here reports whether a record is of this boot and namespace.
func (s *savedSysctls) here() bool {
	now := sysctlsHere()
	return now.Boot != "" && s.Boot == now.Boot && s.NetNS == now.NetNS
}

// note remembers a change. Who changes the same setting again after somebody
// else did found what that one wanted; what the node itself had set before, which
// may be another value now, nobody wanted.
func (s *sysctls) note(c nft.SysctlChange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.all, func(o nft.SysctlChange) bool { return o.Key == c.Key })
	if at >= 0 && s.all[at].Set == c.Found {
		c.Found, c.Along = s.all[at].Found, s.all[at].Along
	}
	s.all = slices.DeleteFunc(slices.Clone(s.all), func(o nft.SysctlChange) bool { return o.Key == c.Key })
	if c.Found != c.Set && len(s.all) < maxSysctls {
		s.all = append(s.all, c)
	}
	s.changed()
}

// notePort remembers a port that was put into hairpin mode.
func (s *sysctls) notePort(p hostmend.Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.ports, p) {
		s.ports = append(slices.Clone(s.ports), p)
		if more := len(s.ports) - maxSysctls; more > 0 {
			s.ports = s.ports[more:] // of containers that are gone, most likely
		}
	}
	s.changed()
}

// keepPorts forgets ports that are none of the devices any more: they went with
// their containers. Where no device could be read it forgets none.
func (s *sysctls) keepPorts(devices []hostcheck.Device) {
	if len(devices) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := slices.DeleteFunc(slices.Clone(s.ports), func(p hostmend.Port) bool {
		return !slices.ContainsFunc(devices, func(d hostcheck.Device) bool { return d.Name == p.Name })
	})
	if len(kept) < len(s.ports) {
		s.ports = kept
		s.changed()
	}
}

// noteDriver remembers what has programmed load balancing here.
func (s *sysctls) noteDriver(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.driver != name {
		s.driver = name
		s.changed()
	}
}

// programmedBy returns what has, in this life or another one of this boot; "" if
// nothing has.
func (s *sysctls) programmedBy() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.driver
}

// portList returns the ports, which must not be changed.
func (s *sysctls) portList() []hostmend.Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ports
}

// changed asks for a write.
func (s *sysctls) changed() {
	select {
	case s.fresh <- struct{}{}:
	default:
	}
}

// maxSysctls bounds the list: a host may have many interfaces.
const maxSysctls = 4096

func (s *sysctls) list() []nft.SysctlChange {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// run saves what is noted until ctx ends. Nobody waits for the disk.
func (s *sysctls) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.fresh:
			_ = s.write() // the data directory notes what fails, and tries again
		}
	}
}

// write saves all of them; none are no file.
func (s *sysctls) write() error {
	saved := sysctlsHere()
	s.mu.Lock()
	saved.Changes, saved.Ports, saved.Lets, saved.Driver = s.all, s.ports, s.lets, s.driver
	empty := len(saved.Changes)+len(saved.Ports)+len(saved.Lets) == 0 && saved.Driver == "" && !s.filed
	s.filed = !empty
	s.mu.Unlock()
	if empty || s.save == nil {
		return nil
	}
	return s.save(saved)
}

// openSysctls reads what former lives changed. A file that cannot be read is
// moved aside: it must not keep a host from its services.
func (n *Node) openSysctls() error {
	var saved savedSysctls
	if err := n.dir.Load(fileSysctls, &saved); err != nil {
		n.setAside(fileSysctls, err, "cleanup cannot put back the sysctls that meshd set before")
		saved = savedSysctls{}
	}
	n.sysctls = newSysctls(saved, func(s savedSysctls) error { return n.dir.Save(fileSysctls, s) })
	return nil
}

// setAside moves a file away that cannot be read, and without which a node can
// start, and tells what that means: once the node starts.
func (n *Node) setAside(file string, why error, means string) {
	n.late = append(n.late, func() {
		path := n.dir.File(file)
		text := fmt.Sprintf("%v; moved to %s.corrupted: %s", why, path, means)
		if err := os.Rename(path, path+".corrupted"); err != nil {
			text += fmt.Sprintf(" (not moved: %v)", err)
		}
		n.log.Warn("a file of the data directory cannot be read", "detail", text)
		n.notices.Set(strings.TrimSuffix(file, ".json"), text)
	})
}

// forwarding says what was done to the host so that it forwards, or what does
// not work since it does not.
func (n *Node) forwarding() []string {
	if n.cfg.LB == "none" {
		return nil
	}
	var changed []string
	for _, c := range n.sysctls.list() {
		if strings.HasSuffix(c.Key, "forward") || strings.HasSuffix(c.Key, "/forwarding") ||
			strings.HasSuffix(c.Key, "/force_forwarding") || strings.HasSuffix(c.Key, "/accept_ra") {
			changed = append(changed, c.String())
		}
	}
	setting := "--forwarding off leaves that to you"
	for _, group := range hostmend.ByChain(n.sysctls.letList()) {
		changed = append(changed, "rules in chain "+group[0].ChainID())
		setting = "--forwarding off, and for the rules --firewall tell, leave that to you"
	}
	for _, p := range n.sysctls.portList() {
		changed = append(changed, "hairpin mode of port "+p.Name)
	}
	if n.cfg.Forwarding != "off" {
		if len(changed) == 0 {
			return nil
		}
		if len(changed) > toldSysctls {
			changed = append(changed[:toldSysctls:toldSysctls], "and more")
		}
		return []string{fmt.Sprintf("meshd changed this host so that its containers reach VIPs: %s; %s, and meshd cleanup "+
			"puts it back", strings.Join(changed, ", "), setting)}
	}
	var not []string
	for _, f := range []struct {
		family, file string
		used         bool
	}{{"IPv4", "/proc/sys/net/ipv4/ip_forward", true}, {"IPv6", "/proc/sys/net/ipv6/conf/all/forwarding", n.hasPool6()}} {
		if now, err := os.ReadFile(f.file); f.used && err == nil && strings.TrimSpace(string(now)) == "0" {
			not = append(not, f.family)
		}
	}
	if len(not) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("this host does not forward %s packets (forwarding: off): its containers reach VIPs "+
		"only as sandboxes", strings.Join(not, " and "))}
}

// toldSysctls bounds a line of status.
const toldSysctls = 8

// hasPool6 reports whether a network here has an IPv6 pool.
func (n *Node) hasPool6() bool {
	names, _ := n.host.Source().Networks()
	for _, name := range names {
		if v := n.host.Source().View(name); v != nil && v.Def().Subnet6.IsValid() {
			return true
		}
	}
	return false
}

// sysctlsLeft is what cleanup finds of the host's settings.
type sysctlsLeft struct {
	ours   []nft.SysctlChange     // still as meshd set them
	others []string               // what somebody else made of the rest
	ports  []hostmend.Port        // of bridges, still in hairpin mode
	lets   []hostcheck.AcceptRule // rules in chains of others
}

// leftSysctls returns what is left of the settings that the data directory
// remembers.
func leftSysctls(dir *store.Dir) (left sysctlsLeft, err error) {
	var saved savedSysctls
	if err := dir.Load(fileSysctls, &saved); err != nil || !saved.here() {
		return left, err
	}
	left.lets = saved.Lets
	left.ours, left.others, err = changedSysctls(saved.Changes)
	for _, p := range saved.Ports {
		on, portErr := hostmend.HairpinOn(p)
		if err = errors.Join(err, portErr); on {
			left.ports = append(left.ports, p)
		}
	}
	return left, err
}

// cleanSysctls puts the host's settings back as they were found, unless
// somebody else has changed them since.
func (c *Cleaned) cleanSysctls(ctx context.Context, cfg CleanupConfig) {
	dir := store.Unlocked(cfg.DataDir)
	left, err := leftSysctls(dir)
	if err != nil {
		c.Err = errors.Join(c.Err, err)
		return
	}
	c.Kept = left.others
	fromLets := c.cleanLets(ctx, left.lets, cfg.DryRun)
	if cfg.KeepSysctls {
		c.Err = errors.Join(c.Err, fromLets)
		for _, s := range left.ours {
			c.Kept = append(c.Kept, "sysctl "+s.String())
		}
		for _, p := range left.ports {
			c.Kept = append(c.Kept, "hairpin mode of port "+p.Name)
		}
		return
	}
	for _, p := range left.ports {
		c.PutBack = append(c.PutBack, "hairpin mode of port "+p.Name)
	}
	for _, s := range left.ours {
		c.PutBack = append(c.PutBack, "sysctl "+s.String())
	}
	if cfg.DryRun {
		return
	}
	err = errors.Join(fromLets, putBackSysctls(left.ours))
	for _, p := range left.ports {
		err = errors.Join(err, hostmend.HairpinOff(p))
	}
	if err != nil {
		c.Err = errors.Join(c.Err, err)
		return
	}
	if err := os.Remove(dir.File(fileSysctls)); err != nil && !errors.Is(err, os.ErrNotExist) {
		cfg.Log.Warn("the record of sysctls stays", slog.Any("error", err))
	}
}
