package ipvs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// procService is a service as a line of /proc/net/ip_vs tells it: without the
// flags of its scheduler, without the unit of its timeout, and a mark without
// its family.
type procService struct {
	proto      uint8          // 0 with a mark
	mark       uint32         // 0 with an address
	addr       netip.AddrPort // the zero AddrPort with a mark
	scheduler  string
	persistent bool
	onePacket  bool // IPv6 lines do not tell
}

// procBackend is a destination as a line of /proc/net/ip_vs tells it.
type procBackend struct {
	addr             netip.AddrPort
	forward          string // "Masq", "Local", "Tunnel", "Route", "Bypass"
	weight           uint32
	active, inactive int // connections: established, and all others
}

// errProc says that /proc/net/ip_vs has another format than this package knows.
var errProc = errors.New("/proc/net/ip_vs: unknown format")

// maxLine bounds a line of /proc/net/ip_vs; the longest known has 110 bytes.
const maxLine = 4096

// tableBuffer is for reading /proc/net/ip_vs, which comes in pieces of a page,
// or of a service if that is longer.
const tableBuffer = 128 << 10

// parseTable reads what /proc/net/ip_vs says and calls each for every service
// with its backends in the kernel's order. The slice is used again for the
// next one. buf is for reading and must hold more than one line.
func parseTable(r io.Reader, buf []byte, each func(procService, []procBackend) error) error {
	p := tableParser{each: each}
	kept, idle := 0, 0 // bytes of an incomplete line at the beginning of buf; reads without any
	for {
		n, err := r.Read(buf[kept:])
		if idle++; n > 0 {
			idle = 0
		} else if err == nil && idle > 100 {
			return fmt.Errorf("read /proc/net/ip_vs: %w", io.ErrNoProgress)
		}
		rest := buf[:kept+n]
		for {
			end := bytes.IndexByte(rest, '\n')
			if end < 0 {
				break
			}
			if err := p.line(rest[:end]); err != nil {
				return err
			}
			rest = rest[end+1:]
		}
		if len(rest) > maxLine || len(rest) == len(buf) {
			return fmt.Errorf("%w: line of more than %d bytes", errProc, len(rest))
		}
		kept = copy(buf, rest)
		if errors.Is(err, io.EOF) {
			if kept > 0 {
				return fmt.Errorf("%w: %q does not end", errProc, rest)
			}
			return p.flush()
		}
		if err != nil {
			return fmt.Errorf("read /proc/net/ip_vs: %w", err)
		}
	}
}

// tableParser gathers the lines of one service.
type tableParser struct {
	each     func(procService, []procBackend) error
	service  procService
	backends []procBackend
	open     bool
}

func (p *tableParser) flush() error {
	if !p.open {
		return nil
	}
	p.open = false
	return p.each(p.service, p.backends)
}

func (p *tableParser) line(line []byte) error {
	if len(line) > 5 && string(line[:5]) == "  -> " {
		if p.open {
			if b, ok := parseColumns(line[5:]); ok {
				p.backends = append(p.backends, b)
				return nil
			}
		}
		if bytes.HasPrefix(line, []byte("  -> RemoteAddress")) {
			return nil
		}
		b, ok := parseBackend(line[5:])
		if !ok || !p.open {
			return fmt.Errorf("%w: %q", errProc, line)
		}
		p.backends = append(p.backends, b)
		return nil
	}
	if bytes.HasPrefix(line, []byte("IP Virtual Server ")) || bytes.HasPrefix(line, []byte("Prot LocalAddress")) {
		return nil
	}
	s, ok := parseServiceLine(line)
	if !ok {
		return fmt.Errorf("%w: %q", errProc, line)
	}
	if err := p.flush(); err != nil {
		return err
	}
	p.service, p.backends, p.open = s, p.backends[:0], true
	return nil
}

// parseServiceLine parses "TCP  0A600001:0050 wrr persistent 75000 FFFFFFFF",
// "TCP  [fd96::1 in full]:0050 wrr" or "FWM  6D000001 wrr ops".
func parseServiceLine(line []byte) (s procService, ok bool) {
	kind, rest := field(line)
	where, rest := field(rest)
	name, rest := field(rest)
	if len(name) == 0 {
		return s, false
	}
	s.scheduler = intern(name)
	switch string(kind) {
	case "FWM":
		if len(where) != 8 {
			return s, false
		}
		s.mark, ok = hex(where)
		ok = ok && s.mark != 0
	case "TCP":
		s.proto = 6
	case "UDP":
		s.proto = 17
	case "SCTP":
		s.proto = 132
	default:
		return s, false
	}
	if s.proto != 0 {
		s.addr, ok = parseAddr(where)
	}
	for word, rest := field(rest); len(word) > 0; word, rest = field(rest) {
		switch string(word) {
		case "ops":
			s.onePacket = true
		case "persistent":
			s.persistent = true
		}
	}
	return s, ok
}

// intern returns the usual schedulers' names without an allocation.
func intern(name []byte) string {
	for _, known := range [...]string{"wrr", "rr", "mh", "sh", "wlc", "lc", "sed", "nq"} {
		if string(name) == known {
			return known
		}
	}
	return string(name)
}

// parseBackend parses "0A000001:0050      Masq    1      0          0".
func parseBackend(line []byte) (b procBackend, ok bool) {
	where, rest := field(line)
	forward, rest := field(rest)
	weight, rest := field(rest)
	active, rest := field(rest)
	inactive, _ := field(rest)
	if b.addr, ok = parseAddr(where); !ok || len(forward) == 0 {
		return b, false
	}
	b.forward = string(forward)
	w, okW := number(weight)
	a, okA := number(active)
	i, okI := number(inactive)
	// The kernel changes its counters without locks: a moment's -1 is 0.
	b.weight, b.active, b.inactive = uint32(max(w, 0)), max(a, 0), max(i, 0)
	return b, okW && okA && okI && w >= 0
}

// parseColumns is parseBackend for the lines that there are a hundred thousand
// of: IPv4, masqueraded, every column in its place.
func parseColumns(line []byte) (b procBackend, ok bool) {
	const masq = "      Masq    "
	if len(line) < 13+len(masq)+7+11+1 || string(line[13:13+len(masq)]) != masq {
		return b, false
	}
	addr, okA := parseAddr(line[:13])
	rest := line[13+len(masq):]
	weight, rest, okW := column(rest, 6)
	active, rest, okC := column(rest, 10)
	inactive, _, okI := column(rest, 10)
	return procBackend{addr: addr, forward: "Masq", weight: weight, active: int(active), inactive: int(inactive)}, okA &&
		okW && okC && okI
}

// column parses a number that stands left in a column of that width, and
// returns what follows the space after it. It refuses what is not as usual.
func column(line []byte, width int) (v uint32, rest []byte, ok bool) {
	n := 0
	for n < len(line) && n < width && line[n]-'0' <= 9 {
		v = 10*v + uint32(line[n]-'0')
		n++
	}
	if n == 0 || n == 10 || len(line) < width || n < len(line) && line[n] != ' ' {
		return 0, nil, false
	}
	return v, line[min(width+1, len(line)):], true
}

// field returns the first word of line, and what follows it.
func field(line []byte) (word, rest []byte) {
	start := 0
	for start < len(line) && line[start] == ' ' {
		start++
	}
	end := start
	for end < len(line) && line[end] != ' ' {
		end++
	}
	return line[start:end], line[end:]
}

// parseAddr parses "0A000001:0050" or "[fd00:0000:…:0001]:0050", whose groups
// all have four digits.
func parseAddr(s []byte) (netip.AddrPort, bool) {
	if len(s) == 13 && s[8] == ':' {
		a, ok := hex(s[:8])
		port, okPort := hex(s[9:])
		raw := [4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}
		return netip.AddrPortFrom(netip.AddrFrom4(raw), uint16(port)), ok && okPort
	}
	if len(s) != 46 || s[0] != '[' || s[40] != ']' || s[41] != ':' {
		return netip.AddrPort{}, false
	}
	var raw [16]byte
	for group := range 8 {
		at := 1 + 5*group
		v, ok := hex(s[at : at+4])
		if !ok || group < 7 && s[at+4] != ':' {
			return netip.AddrPort{}, false
		}
		raw[2*group], raw[2*group+1] = byte(v>>8), byte(v)
	}
	port, ok := hex(s[42:])
	return netip.AddrPortFrom(netip.AddrFrom16(raw), uint16(port)), ok
}

// hex parses up to eight hexadecimal digits.
func hex(s []byte) (v uint32, ok bool) {
	if len(s) == 0 || len(s) > 8 {
		return 0, false
	}
	for _, c := range s {
		d := c - '0'
		if d > 9 {
			if d = (c | 0x20) - 'a'; d > 5 {
				return 0, false
			}
			d += 10
		}
		v = v<<4 | uint32(d)
	}
	return v, true
}

// number parses a decimal number of 32 bits with sign.
func number(s []byte) (int, bool) {
	negative := len(s) > 0 && s[0] == '-'
	if negative {
		s = s[1:]
	}
	if len(s) == 0 || len(s) > 10 {
		return 0, false
	}
	v := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = 10*v + int(c-'0')
	}
	if v > 1<<31 {
		return 0, false
	}
	if negative {
		v = -v
	}
	return v, true
}
