package resolver

// This file owns what the package knows of the types of questions as such. The
// types that have records are state.RecordTypes; what their records are, is in
// emit.go.

import (
	"slices"

	"github.com/miekg/dns"

	"meshd/state"
)

// servedTypes are the types that names have records of. Questions of these types
// are counted by type, all others as "other".
var servedTypes = typesOf(state.RecordTypes())

// packedTypes are the types whose answers the fast path keeps: those that are
// served, and those that clients ask for all the time without success. Others
// are rare, and each would have entries of its own. They are 32 at most, since
// a scope has a bit for each.
var packedTypes = append(slices.Clone(servedTypes),
	without(servedTypes, dns.TypeTXT, dns.TypeMX, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeSOA, dns.TypeNS, dns.TypeCNAME)...)

// typesOf reads the names of types.
func typesOf(names []string) (types []uint16) {
	for _, n := range names {
		types = append(types, dns.StringToType[n])
	}
	return types
}

// without returns the types that are not in the list.
func without(list []uint16, types ...uint16) []uint16 {
	return slices.DeleteFunc(types, func(t uint16) bool { return slices.Contains(list, t) })
}

// countedAs returns the place of a type in servedTypes, or the place after the
// last, where all other types are counted.
func countedAs(qtype uint16) int {
	if i := slices.Index(servedTypes, qtype); i >= 0 {
		return i
	}
	return len(servedTypes)
}

// typeLabel is the name of what is counted at a place.
func typeLabel(i int) string {
	if i < len(servedTypes) {
		return dns.TypeToString[servedTypes[i]]
	}
	return "other"
}
