package state

// This file owns what the claims in a table come to, and how far the times in
// them are believed.

// claimIndex is what one network's claims and settings give. It belongs to the
// table's goroutine.
type claimIndex struct {
	clock         *belief   // the store's
	vips          *vipTable // who has which address
	unbelieved    uint64    // times in claims that were not believed, ever (S16)
	claimsChanged bool      // a claim, a setting or the definition changed since takeClaimsChanged
}

func newClaimIndex(network string, clock *belief) claimIndex {
	return claimIndex{clock: clock, vips: newVIPTable(NetworkDef{Name: network})}
}

// witness moves the clock past a time in a statement, if it can be true.
func (x *claimIndex) witness(t uint64) {
	if !x.clock.believes(t) {
		x.unbelieved++
		return
	}
	x.clock.Witness(t)
}

// takeClaimsChanged reports whether claims, settings or the definition changed
// since the last call.
func (x *claimIndex) takeClaimsChanged() bool {
	changed := x.claimsChanged
	x.claimsChanged = false
	return changed
}
