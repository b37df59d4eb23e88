package registry

import "meshd/mesh/control"

// TaskAPI is what the control API offers about the tasks of this node. It is safe
// for concurrent use.
type TaskAPI struct{ r *Registry }

// NetworkAPI is what the control API offers about networks, and what a node asks its
// peers about them. It is safe for concurrent use.
type NetworkAPI struct{ r *Registry }

// ServiceAPI is what the control API offers about services, but for their names and
// their load balancing. It is safe for concurrent use.
type ServiceAPI struct{ r *Registry }

var (
	_ control.TaskBackend    = (*TaskAPI)(nil)
	_ control.NetworkBackend = (*NetworkAPI)(nil)
)

// Tasks returns the API about tasks.
func (r *Registry) Tasks() *TaskAPI { return &TaskAPI{r} }

// Networks returns the API about networks.
func (r *Registry) Networks() *NetworkAPI { return &NetworkAPI{r} }

// Services returns the API about services.
func (r *Registry) Services() *ServiceAPI { return &ServiceAPI{r} }
