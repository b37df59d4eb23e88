package hostread

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// maxTable bounds a table of iptables' own, in bytes. The kernel hands it out as a
// whole, but says first how large it is.
const maxTable = 32 << 20

// The socket options with which iptables reads its own tables in the kernel, and the
// sizes in bytes of their values (ip_tables.h, the same for IPv6).
const (
	optInfo    = 64
	optEntries = 65
	tableName  = 32
	infoSize   = tableName + 4 + 5*4 + 5*4 + 4 + 4 // name, hooks, entries, policies, rules, bytes
	entriesAt  = 40                                // after name and size, aligned
)

// legacyFamily is iptables or ip6tables.
type legacyFamily struct {
	family   byte     // NFPROTO_…
	domain   int      // of the socket
	level    int      // of the socket options
	names    string   // the file below /proc/net that lists the tables that exist
	programs []string // that write the tables; the first one that is installed
	layout   layout   // of an entry
}

var legacyFamilies = []legacyFamily{
	{unix.NFPROTO_IPV4, unix.AF_INET, unix.SOL_IP, "ip_tables_names", []string{"iptables-legacy", "iptables"}, layout4},
	{
		unix.NFPROTO_IPV6, unix.AF_INET6, unix.SOL_IPV6, "ip6_tables_names",
		[]string{"ip6tables-legacy", "ip6tables"},
		layout6,
	},
}

// legacyPriority is the priority at a hook of the tables that are read. Of nat only
// the chain that shows kube-proxy's addresses counts.
var legacyPriority = map[string]int32{"raw": -300, "mangle": -150, "filter": 0, "security": 50, "nat": -100}

// legacyChains reads the tables of iptables' own in the kernel, which nftables does
// not show. Only tables that exist are read, since asking for another one makes it.
func (f *filters) legacyChains() (all []hostcheck.Chain, err error) {
	for i := range legacyFamilies {
		l := &legacyFamilies[i]
		names, err := os.ReadFile("/proc/thread-self/net/" + l.names)
		if errors.Is(err, os.ErrPermission) {
			return nil, err // no file: no tables
		}
		for table := range strings.FieldsSeq(string(names)) {
			if _, counts := legacyPriority[table]; !counts {
				continue
			}
			program := l.program()
			got, err := f.legacyTable(l, table, program)
			if err != nil {
				return nil, fmt.Errorf("rules of %s (see %s-save -t %s): %w", table, program, table, err)
			}
			all = append(all, got...)
		}
	}
	return all, nil
}

// program returns the name under which iptables writes its own tables here.
func (l *legacyFamily) program() string {
	if _, err := exec.LookPath(l.programs[0]); err == nil {
		return l.programs[0]
	}
	return l.programs[1]
}

// legacyTable reads one table.
func (f *filters) legacyTable(l *legacyFamily, table, program string) ([]hostcheck.Chain, error) {
	fd, err := unix.Socket(l.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	for range readAttempts {
		info := make([]byte, infoSize)
		copy(info, table)
		if err := getsockopt(fd, l.level, optInfo, info); err != nil {
			return nil, err
		}
		size := binary.NativeEndian.Uint32(info[infoSize-4:])
		if size > maxTable {
			return nil, fmt.Errorf("%w: the table has %d bytes, more than %d", errTooMuch, size, maxTable)
		}
		entries := make([]byte, entriesAt+int(size))
		copy(entries, table)
		binary.NativeEndian.PutUint32(entries[tableName:], size)
		err := getsockopt(fd, l.level, optEntries, entries)
		if errors.Is(err, unix.EAGAIN) { // it has another size by now
			continue
		}
		if err != nil {
			return nil, err
		}
		t := legacyTable{filters: f, family: l, name: table, program: program, info: info, rules: entries[entriesAt:]}
		return t.chains()
	}
	return nil, errInterrupted
}

// getsockopt fills value with the value of a socket option.
func getsockopt(fd, level, option int, value []byte) error {
	size := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}

// legacyTable is a table that is being read.
type legacyTable struct {
	filters *filters
	family  *legacyFamily
	name    string
	program string         // that writes it
	info    []byte         // the answer to optInfo
	rules   []byte         // its entries
	heads   map[int]string // user-defined chains, by the place of their first rule
}

// hookChains are the chains of hooks, by the number of the hook.

var hookChains = []struct {
	name string
	hook hostcheck.Hook
}{
	{"PREROUTING", hostcheck.Prerouting},
	{"INPUT", hostcheck.Input},
	{"FORWARD", hostcheck.Forward},
	{"OUTPUT", hostcheck.Output},
	{"POSTROUTING", ""},
}

// hookAt returns the number of the hook whose chain begins at a place, or, with the
// table of policies, ends there; -1: none.
func (t *legacyTable) hookAt(place, table int) int {
	valid := binary.NativeEndian.Uint32(t.info[tableName:])
	for h := range hookChains {
		if valid&(1<<h) != 0 && int(binary.NativeEndian.Uint32(t.info[table+4*h:])) == place {
			return h
		}
	}
	return -1
}

// Where the answer to optInfo has the places of the hooks' first rules and policies.
const (
	infoHooks    = tableName + 4
	infoPolicies = infoHooks + 5*4
)

// chains returns the table's chains.
func (t *legacyTable) chains() (all []hostcheck.Chain, err error) {
	if err := t.findHeads(); err != nil {
		return nil, err
	}
	var c *chain
	end := func() {
		if c != nil && (t.name != "nat" || c.Name == "KUBE-SERVICES") {
			all = append(all, c.Chain)
		}
		c = nil
	}
	err = t.each(func(at int, e entry) error {
		if h := t.hookAt(at, infoHooks); h >= 0 {
			end()
			c = t.chain(hookChains[h].name)
			c.Hook, c.Priority = hookChains[h].hook, legacyPriority[t.name]
		}
		switch {
		case e.target == "ERROR":
			end()
			c = t.chain(e.chain())
		case c == nil:
		case t.hookAt(at, infoPolicies) >= 0:
			c.Drops = e.code() == legacyDrop
		case t.name != "nat" || c.Name == "KUBE-SERVICES":
			return t.filters.addRules(c, t.filters.legacyRule(t, c, at, e))
		}
		return nil
	})
	return all, err // the last entry only marks the end of the table
}

// chain returns a chain of the table, without rules.
func (t *legacyTable) chain(name string) *chain {
	c := &chain{family: t.family.family, filter: t.name != "nat"}
	c.Program, c.Family, c.Table, c.Name = t.program, familyNames[t.family.family], t.name, name
	return c
}

// findHeads finds where user-defined chains begin.
func (t *legacyTable) findHeads() error {
	t.heads = map[int]string{}
	return t.each(func(at int, e entry) error {
		if e.target == "ERROR" {
			t.heads[at+e.size] = e.chain()
		}
		return nil
	})
}

// each calls take for each entry, with its place.
func (t *legacyTable) each(take func(at int, e entry) error) error {
	for at := 0; at < len(t.rules); {
		e, ok := t.family.layout.entry(t.rules[at:])
		if !ok {
			return errors.New("a rule of the kernel is cut")
		}
		if err := take(at, e); err != nil {
			return err
		}
		at += e.size
	}
	return nil
}

// legacyRule turns an entry into at most one rule.
func (f *filters) legacyRule(t *legacyTable, c *chain, at int, e entry) []hostcheck.Rule {
	r := rule{filters: f, chain: c, registers: map[uint32]loaded{}}
	t.family.layout.conditions(&r, e.head)
	e.matches(func(name string, revision uint32, info []byte) { r.xtMatch(name, revision, info) })
	if e.target != "" {
		r.xtTarget(e.target)
	} else {
		t.verdict(&r, at, e)
	}
	if r.verdict == hostcheck.Nothing {
		return r.ofInterest()
	}
	return []hostcheck.Rule{{Conditions: slices.Clip(r.all), Verdict: r.verdict, To: r.to}}
}

// Verdicts in entries: the kernel's number n is written as -n-1.
const (
	legacyDrop   = -1
	legacyAccept = -2
	legacyReturn = -5
)

// verdict understands an entry without a target of its own: a verdict, or a jump to
// the place in its code.
func (t *legacyTable) verdict(r *rule, at int, e entry) {
	switch code := e.code(); {
	case code == legacyDrop:
		r.decide(hostcheck.Drop, "")
	case code == legacyAccept:
		r.decide(hostcheck.Accept, "")
	case code == legacyReturn:
		r.decide(hostcheck.Return, "")
	case code == at+e.size: // the next rule
	case code < 0:
		r.decide(hostcheck.Undecided, "")
	case t.family.layout.jumps(e.head):
		r.decide(hostcheck.Jump, t.heads[code])
	default:
		r.decide(hostcheck.Goto, t.heads[code])
	}
}
