package state

// RecordTypes returns the types of DNS records that names have, in the order in
// which they are listed for people. The resolver answers, packs and counts them,
// and the API, meshctl and their documents offer them.
func RecordTypes() []string { return []string{"A", "AAAA", "SRV", "PTR", "ANY"} }
