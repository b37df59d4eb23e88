package control

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"meshd/state"
)

// checkNotNumeric refuses a name that programs take for an address, such as
// 10.1.1.1 or, by inet_aton(3), 80 and 10.1: no program would look it up.
func checkNotNumeric(field, name string) error {
	if name == "" || strings.Trim(name, "0123456789.") != "" {
		return nil
	}
	return invalid(field, "put a letter in front, for example n"+name,
		"%q is taken for an address by programs, which never ask for it", name)
}

// reason is what package state finds wrong with a value. The field of the request
// names it already.
func reason(err error) string {
	if f, ok := errors.AsType[*state.FieldError](err); ok {
		err = f.Reason
	}
	return err.Error()
}

const nameHint = "use letters, digits, '-' and '_', with dots between labels"

// CheckName reports why s cannot be the name in a field of a request, as an
// *Error of CodeInvalid.
func CheckName(field, s string) error {
	if s == "" {
		return invalid(field, "name the "+field, "it is missing")
	}
	if err := state.CheckName(s); err != nil {
		if state.CheckNode(s) == nil { // a word that means something else
			return invalid(field, "choose another name", "%s", reason(err))
		}
		return invalid(field, "use at most 63 letters, digits, '-' and '_', without dots", "%s", reason(err))
	}
	return nil
}

// parseAddrs reads at most one address per family.
func parseAddrs(field string, in []string) (out []netip.Addr, err error) {
	for _, s := range in {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, invalid(field, "write an address without prefix length or port, for example 10.1.0.7 or fd00::7",
				"%q is not an IP address", s)
		}
		a = a.Unmap()
		if err := state.CheckTaskAddr(a); err != nil {
			return nil, invalidValue(field, err)
		}
		for _, b := range out {
			if a.Is4() == b.Is4() {
				return nil, invalid(field, "give at most one IPv4 and one IPv6 address", "%s and %s are of one family", b, a)
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// Parse checks the addresses and returns them as HOST:PORT.
func (r JoinRequest) Parse() ([]string, error) {
	if len(r.Addresses) == 0 {
		return nil, invalid("addresses", "give the address of a member, for example 192.0.2.10:7946", "none is given")
	}
	if len(r.Addresses) > 64 {
		return nil, invalid("addresses", "a few are enough: the rest is learnt", "%d addresses, at most 64", len(r.Addresses))
	}
	out := make([]string, len(r.Addresses))
	for i, a := range r.Addresses {
		var err error
		if out[i], err = state.ParseHostPort(a); err != nil {
			return nil, invalidValue("addresses", err)
		}
	}
	return out, nil
}

// KeySize is the size of a gossip key in bytes (AES-256).
const KeySize = 32

// KeyID returns the short public name of a key: 12 hex digits of its hash.
func KeyID(key []byte) string {
	sum := sha256.Sum256(append([]byte("meshd key id\x00"), key...))
	return hex.EncodeToString(sum[:6])
}

// Parse returns the key, or, if the request names an installed key, its id.
// Exactly one of both is set without an error. The error never shows the key.
func (r KeyRequest) Parse() (key []byte, id string, err error) {
	s := strings.TrimSpace(r.Key)
	if b, err := base64.StdEncoding.DecodeString(s); err == nil {
		switch len(b) {
		case 16, 24, KeySize:
			return b, "", nil
		}
	}
	if b, err := hex.DecodeString(s); err == nil && len(b) == 6 {
		return nil, strings.ToLower(s), nil
	}
	return nil, "", invalid("key", `"meshctl keygen" makes a key; "meshctl key ls" shows the ids of those installed`,
		"it is neither a base64 key of 32 bytes nor a key id of 12 hex digits; of a file, write - < FILE")
}

func addrs(all ...netip.Addr) []netip.Addr {
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.IsValid() })
}

func portStrings(ports []state.Port) []string {
	out := make([]string, 0, len(ports))
	for _, p := range ports {
		out = append(out, p.String())
	}
	return out
}
