package pool

import (
	"meshd/lb/nftconn"
)

// vandal is somebody else with the right to change the namespace.
type vandal struct {
	*rig
	*nftconn.Conn
}

func (r *rig) vandal() *vandal {
	r.T.Helper()
	s, err := nftconn.Open(nftconn.Config{NetNS: r.Node.Path})
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { _ = s.Close() })
	return &vandal{r, s}
}

func (v *vandal) must(err error) {
	v.T.Helper()
	if err == nil {
		err = v.Nftables.Flush()
	}
	if err != nil {
		v.T.Fatal(err)
	}
}
