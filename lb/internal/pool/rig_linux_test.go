package pool

import (
	"log/slog"
	"testing"

	"meshd/lb/internal/linktest"
)

// rig is a node and a peer with a link between them.
type rig struct{ *linktest.Pair }

func newRig(t testing.TB) *rig { return &rig{linktest.New(t)} }

var (
	pool4, pool6 = linktest.Pool4, linktest.Pool6
	vip4, vip6   = linktest.VIP4, linktest.VIP6
	node4, node6 = linktest.Node4, linktest.Node6
)

// marked returns what IPVS has, set up.
func (r *rig) marked() *Marked {
	r.T.Helper()
	h, err := NewMarked(r.config())
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { h.Close() })
	if err := h.Setup(); err != nil {
		r.T.Fatal(err)
	}
	return h
}

func (r *rig) config() Config { return Config{NetNS: r.Node.Path, Log: slog.New(slog.DiscardHandler)} }
