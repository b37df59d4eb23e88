package mesh

import (
	"meshd/mesh/control"
	"meshd/mesh/registry"
)

// backend is control.Backend, composed of the parts that serve it.
type backend struct {
	*registry.TaskAPI
	*registry.NetworkAPI
	*registry.ServiceAPI
	control.KeyBackend // of package keys
}

var _ control.Backend = (*Node)(nil)
