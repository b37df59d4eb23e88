package resolver

// This file owns the text of names: folding, labels, and addresses in reverse
// names. Its functions are pure, and only slice the strings that they are given.

import (
	"net/netip"
	"strings"
)

// fold lower-cases the ASCII letters of a presentation-form name and removes
// its final dot. The root becomes "".
func fold(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// cutDomain removes a suffix of whole labels: "web.net.mesh.internal" without
// "mesh.internal" is "web.net"; the suffix itself gives "".
func cutDomain(name, domain string) (rest string, ok bool) {
	if name == domain {
		return "", true
	}
	rest, ok = strings.CutSuffix(name, domain)
	end := len(rest) - 1
	if !ok || end < 1 || rest[end] != '.' || escaped(rest, end) {
		return "", false
	}
	return rest[:end], true
}

// cutLast splits off the last label: "web.net" is "web" and "net".
func cutLast(name string) (rest, last string) {
	i := strings.LastIndexByte(name, '.')
	for i > 0 && escaped(name, i) {
		i = strings.LastIndexByte(name[:i], '.')
	}
	return name[:max(i, 0)], name[i+1:]
}

// escaped reports whether name[i] belongs to its label, as in "a\.b".
func escaped(name string, i int) bool {
	n := 0
	for i > n && name[i-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

// labels counts the labels of a name without its final dot.
func labels(name string) int {
	if name == "" {
		return 0
	}
	n := 1
	for i := range len(name) {
		if name[i] == '.' && !escaped(name, i) {
			n++
		}
	}
	return n
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// reverseAddr reads the address of a reverse name. For a shorter name (an empty
// non-terminal) the prefix covers what is below it. ok is false for a name that
// is not in canonical reverse form.
func reverseAddr(name string) (p netip.Prefix, ok bool) {
	if !strings.HasSuffix(name, ".arpa") {
		return netip.Prefix{}, false
	}
	if rest, is := cutDomain(name, "in-addr.arpa"); is {
		return reverse4(rest)
	}
	if rest, is := cutDomain(name, "ip6.arpa"); is {
		return reverse6(rest)
	}
	return netip.Prefix{}, false
}

func reverse4(rest string) (netip.Prefix, bool) {
	var b [4]byte
	n := 0
	for ; rest != ""; n++ {
		var last string
		rest, last = cutLast(rest)
		if n == 4 || !digits(last) || len(last) > 3 || (len(last) > 1 && last[0] == '0') {
			return netip.Prefix{}, false
		}
		v := 0
		for _, c := range last {
			v = v*10 + int(c-'0')
		}
		if v > 255 {
			return netip.Prefix{}, false
		}
		b[n] = byte(v)
	}
	return netip.PrefixFrom(netip.AddrFrom4(b), 8*n), n > 0
}

func reverse6(rest string) (netip.Prefix, bool) {
	var b [16]byte
	n := 0
	for ; rest != ""; n++ {
		var last string
		rest, last = cutLast(rest)
		i := strings.IndexByte("0123456789abcdef", (last + "?")[0])
		if n == 32 || len(last) != 1 || i < 0 {
			return netip.Prefix{}, false
		}
		b[n/2] |= byte(i) << (4 * (1 - n%2))
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), 4*n), n > 0
}
