package hostmend

import (
	"net/netip"
	"slices"
	"strings"

	"meshd/lb/hostcheck"
)

// sameRules reports whether the rules that nft lists are these, each once, in any
// order and with any notation of addresses.
func sameRules(listed []listed, lets []hostcheck.AcceptRule) bool {
	var have, want []string
	for _, l := range listed {
		have = append(have, canonicalMatch(l.match))
	}
	for _, l := range lets {
		want = append(want, canonicalMatch(strings.Join(l.Match, " ")))
	}
	slices.Sort(have)
	slices.Sort(want)
	return slices.Equal(have, want)
}

// canonicalMatch writes what a rule matches in one notation, since nft sorts addresses
// and joins prefixes that are neighbours.
func canonicalMatch(match string) string {
	var words []string
	var spans []hostcheck.Span
	for w := range strings.FieldsSeq(strings.NewReplacer("{", " ", "}", " ", ",", " ").Replace(match)) {
		if s, ok := spanOf(w); ok {
			spans = append(spans, s)
		} else {
			words = append(words, w)
		}
	}
	for _, s := range mergeSpans(spans) {
		words = append(words, s.First.String()+"-"+s.Last.String())
	}
	return strings.Join(words, " ")
}

// spanOf reads an address, a prefix, or the first and last of a range.
func spanOf(word string) (hostcheck.Span, bool) {
	if p, err := netip.ParsePrefix(word); err == nil {
		return hostcheck.SpanOf(p), true
	}
	first, last, both := strings.Cut(word, "-")
	if !both {
		last = first
	}
	from, err := netip.ParseAddr(first)
	to, bad := netip.ParseAddr(last)
	return hostcheck.Span{First: from, Last: to}, err == nil && bad == nil
}

// mergeSpans sorts the spans in place, and returns them with those joined that overlap
// or are neighbours.
func mergeSpans(spans []hostcheck.Span) (all []hostcheck.Span) {
	slices.SortFunc(spans, func(a, b hostcheck.Span) int { return a.First.Compare(b.First) })
	for _, s := range spans {
		n := len(all) - 1
		if n >= 0 && s.First.Is4() == all[n].First.Is4() && (s.First.Compare(all[n].Last) <= 0 ||
			s.First == all[n].Last.Next()) {
			if s.Last.Compare(all[n].Last) > 0 {
				all[n].Last = s.Last
			}
			continue
		}
		all = append(all, s)
	}
	return all
}
