package mesh

import (
	"context"
	"time"

	"meshd/lb/hostcheck"
)

// Sandboxes implements lookout.Host.
func (h *hostView) Sandboxes() []string {
	list := h.n.boxes.List()
	names := make([]string, len(list))
	for i, b := range list {
		names[i] = b.Name()
	}
	return names
}

// LookInside implements lookout.Host.
func (h *hostView) LookInside(ctx context.Context, name string, timeout time.Duration) (found []hostcheck.Finding,
	ok bool,
) {
	b, err := h.n.boxes.Find(name)
	if err != nil {
		return nil, false
	}
	return b.Look(ctx, timeout)
}
