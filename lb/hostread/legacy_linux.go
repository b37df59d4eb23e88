package hostread

import (
	"bytes"
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

// maxTable bounds a table of iptables' own, in bytes: the kernel hands it out as a
// whole, and says before how large it is.
const maxTable = 32 << 20

// Options of sockets with which iptables reads its own tables in the kernel, and
// what they are told and tell (ip_tables.h, the same for IPv6).
const (
	optInfo    = 64
	optEntries = 65
	tableName  = 32
	infoSize   = tableName + 4 + 5*4 + 5*4 + 4 + 4
	entriesAt  = 40 // behind the name and the size, aligned
)

// legacyFamily is iptables or ip6tables.
type legacyFamily struct {
	family   byte
	domain   int
	level    int
	names    string // a file that lists the tables that are there
	programs []string
	layout   layout
}

var legacyFamilies = []legacyFamily{
	{unix.NFPROTO_IPV4, unix.AF_INET, unix.SOL_IP, "ip_tables_names", []string{"iptables-legacy", "iptables"}, layout4},
	{
		unix.NFPROTO_IPV6, unix.AF_INET6, unix.SOL_IPV6, "ip6_tables_names",
		[]string{"ip6tables-legacy", "ip6tables"},
		layout6,
	},
}

// legacyPriority says where in a hook tables that filter are, and nat, which only
// tells of kube-proxy.
var legacyPriority = map[string]int32{"raw": -300, "mangle": -150, "filter": 0, "security": 50, "nat": -100}

// legacy reads the tables of iptables' own in the kernel, which nftables does not
// know of. Tables that nobody has made are not asked for: that would make them.
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

func getsockopt(fd, level, option int, value []byte) error {
	size := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}

// legacyTable is one that is being read.
type legacyTable struct {
	filters *filters
	family  *legacyFamily
	name    string
	program string
	info    []byte
	rules   []byte
	heads   map[int]string // chains of users, by where their first rule is
}

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

// hookAt returns which hook's chain begins, or ends with its policy, at a place; -1:
// none.
func (t *legacyTable) hookAt(place, table int) int {
	valid := binary.NativeEndian.Uint32(t.info[tableName:])
	for h := range hookChains {
		if valid&(1<<h) != 0 && int(binary.NativeEndian.Uint32(t.info[table+4*h:])) == place {
			return h
		}
	}
	return -1
}

// Where a table's information has the first rules of hooks, and their policies.
const (
	infoHooks    = tableName + 4
	infoPolicies = infoHooks + 5*4
)

// chains makes chains of the table's rules.
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
	return all, err // the last one is the end of the table
}

func (t *legacyTable) chain(name string) *chain {
	c := &chain{family: t.family.family, filter: t.name != "nat"}
	c.Program, c.Family, c.Table, c.Name = t.program, familyNames[t.family.family], t.name, name
	return c
}

// findHeads notes where chains of users begin.
func (t *legacyTable) findHeads() error {
	t.heads = map[int]string{}
	return t.each(func(at int, e entry) error {
		if e.target == "ERROR" {
			t.heads[at+e.size] = e.chain()
		}
		return nil
	})
}

// each hands all entries to take, with their places.
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

// legacyRule understands one rule.
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

// Verdicts of iptables' own: those of the kernel, less one and negative.
const (
	legacyDrop   = -1
	legacyAccept = -2
	legacyReturn = -5
)

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

// entry is one rule of a table of iptables' own.
type entry struct {
	head   []byte // the conditions that all rules have
	rest   []byte // matches
	target string // empty: a verdict
	data   []byte // of the target
	size   int
}

// extension is the size of what is before the data of a match or target: its size,
// name and revision.
const (
	extension     = 32
	extensionName = 29
)

// code returns the verdict of an entry without a target.
func (e *entry) code() int {
	if e.target != "" || len(e.data) < 4 {
		return legacyAccept
	}
	return int(int32(binary.NativeEndian.Uint32(e.data)))
}

// chain returns the name of the chain that an entry begins.
func (e *entry) chain() string { return unix.ByteSliceToString(e.data) }

// matches hands the entry's matches to take.
func (e *entry) matches(take func(name string, revision uint32, info []byte)) {
	for b := e.rest; len(b) >= extension; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < extension || n > len(b) {
			return
		}
		take(cString(b[2:2+extensionName]), uint32(b[2+extensionName]), b[extension:n])
		b = b[n:]
	}
}

// layout says where in an entry is what.
type layout struct {
	address    int // size
	devices    int
	protocol   int
	flags      int
	inverse    int
	offsets    int // of the target and the next entry
	matches    int
	gotos      byte // in flags
	protocolIf byte // in flags; 0: whenever there is one
	fragments  byte // in flags
}

var (
	layout4 = layout{
		address: 4, devices: 16, protocol: 80, flags: 82, inverse: 83, offsets: 88, matches: 112, gotos: 2,
		fragments: 1,
	}
	layout6 = layout{
		address: 16, devices: 64, protocol: 128, flags: 131, inverse: 132, offsets: 140, matches: 168,
		gotos: 4, protocolIf: 1, fragments: 2,
	}
)

func (l *layout) jumps(head []byte) bool { return head[l.flags]&l.gotos == 0 }

// entry reads the one that bytes begin with, if it is whole.
func (l *layout) entry(b []byte) (e entry, ok bool) {
	if len(b) < l.matches {
		return e, false
	}
	target, next := int(binary.NativeEndian.Uint16(b[l.offsets:])), int(binary.NativeEndian.Uint16(b[l.offsets+2:]))
	if target < l.matches || next < target+extension || next > len(b) {
		return e, false
	}
	e = entry{head: b[:l.matches], rest: b[l.matches:target], size: next}
	e.target, e.data = cString(b[target+2:target+2+extensionName]), b[target+extension:next]
	return e, true
}

// Inversions of conditions.
const (
	notIn       = 1 << 0
	notOut      = 1 << 1
	notSource   = 1 << 3
	notTarget   = 1 << 4
	notProtocol = 1 << 6
)

// conditions adds those that all rules have.
func (l *layout) conditions(r *rule, head []byte) {
	not := head[l.inverse]
	address := func(field hostcheck.Field, at int, not bool) {
		mask := head[(at+2)*l.address:][:l.address]
		if !bytes.ContainsFunc(mask, func(b rune) bool { return b != 0 }) {
			return
		}
		p, ok := r.prefix(loaded{field: field, mask: mask}, head[at*l.address:][:l.address])
		if !ok {
			r.addUnknown()
			return
		}
		r.all = append(r.all, hostcheck.Condition{Field: field, Not: not, Spans: []hostcheck.Span{hostcheck.SpanOf(p)}})
	}
	address(hostcheck.Source, 0, not&notSource != 0)
	address(hostcheck.Destination, 1, not&notTarget != 0)
	device := func(field hostcheck.Field, at int, not bool) {
		name, mask := head[l.devices+at*unix.IFNAMSIZ:][:unix.IFNAMSIZ], head[l.devices+(at+2)*unix.IFNAMSIZ:][:unix.IFNAMSIZ]
		if mask[0] == 0 {
			return
		}
		compared := bytes.IndexByte(mask, 0)
		if compared < 0 {
			compared = len(mask)
		}
		n := cString(name[:compared])
		if len(n) == compared { // what ends it is not compared
			n += "*"
		}
		r.all = append(r.all, hostcheck.Condition{Field: field, Not: not, Names: []string{n}})
	}
	device(hostcheck.InDevice, 0, not&notIn != 0)
	device(hostcheck.OutDevice, 1, not&notOut != 0)
	if p := uint32(binary.NativeEndian.Uint16(head[l.protocol:])); p != 0 &&
		(l.protocolIf == 0 || head[l.flags]&l.protocolIf != 0) {
		r.all = append(r.all, hostcheck.Condition{
			Field: hostcheck.Protocol, Not: not&notProtocol != 0,
			Numbers: []hostcheck.Numbers{{First: p, Last: p}},
		})
	}
	if head[l.flags]&l.fragments != 0 {
		r.addUnknown()
	}
}
