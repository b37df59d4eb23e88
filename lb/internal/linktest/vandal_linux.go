package linktest

import "meshd/lb/nftconn"

// Vandal is another program with the right to change the node's namespace.
type Vandal struct {
	*Pair
	*nftconn.Conn
}

// Vandal returns a vandal, whose sockets are closed when the test ends.
func (p *Pair) Vandal() *Vandal {
	p.T.Helper()
	s, err := nftconn.Open(nftconn.Config{NetNS: p.Node.Path})
	if err != nil {
		p.T.Fatal(err)
	}
	p.T.Cleanup(func() { _ = s.Close() })
	return &Vandal{p, s}
}

// Must commits what was queued, unless err says that it failed already, and ends the
// test on an error.
func (v *Vandal) Must(err error) {
	v.T.Helper()
	if err == nil {
		err = v.Nftables.Flush()
	}
	if err != nil {
		v.T.Fatal(err)
	}
}
