package mesh

import (
	"context"

	"meshd/mesh/control"
	"meshd/mesh/internal/box"
	"meshd/mesh/internal/registry"
)

// backend is control.Backend, composed of the parts that serve it.
type backend struct {
	*registry.TaskAPI
	*registry.NetworkAPI
	*registry.ServiceAPI
	control.KeyBackend // of package keys
	comparison
	*box.API
	lbAPI
	resolution
}

// lbAPI is what the control API offers about load balancing.
type lbAPI interface {
	LB(ctx context.Context, req control.LBRequest) (control.LBTable, error)
	VerifyLB(ctx context.Context, req control.LBVerifyRequest) (control.LBVerifyReply, error)
}

// comparison is the part of control.NodeBackend that package compare serves.
type comparison interface {
	Diff(ctx context.Context, req control.DiffRequest) (control.Diff, error)
	Spread(ctx context.Context, req control.SpreadRequest) (control.Spread, error)
}

// resolution is what it offers about names.
type resolution interface {
	Resolve(ctx context.Context, req control.ResolveRequest) (control.Resolution, error)
}

var _ control.Backend = (*Node)(nil)
