package resolver

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"meshd/state"
)

// Each type that is offered is known, counted by its name, packed, and has a case
// in testdata/names.txt that is answered with a record.
func TestRecordTypes(t *testing.T) {
	answered := map[string]bool{}
	for _, c := range nameCases(t) {
		if len(c.want) > 0 && !slices.Contains([]string{"FORWARD", "NODATA", "NXDOMAIN"}, firstWord(c.want[0])) {
			answered[c.qtype] = true
		}
	}
	for i, name := range state.RecordTypes() {
		qtype := dns.StringToType[name]
		if qtype == dns.TypeNone || typeLabel(countedAs(qtype)) != name || countedAs(qtype) != i || packedTypes[i] != qtype {
			t.Errorf("%s: type %d, counted as %q", name, qtype, typeLabel(countedAs(qtype)))
		}
		if !answered[name] {
			t.Errorf("testdata/names.txt has no record of type %s", name)
		}
	}
	if len(packedTypes) > 32 || typeLabel(countedAs(dns.TypeCAA)) != "other" {
		t.Errorf("%d types are packed, CAA is counted as %s", len(packedTypes), typeLabel(countedAs(dns.TypeCAA)))
	}
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}
