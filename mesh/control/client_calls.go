package control

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

var _ Backend = (*Client)(nil)

// CreateNetwork implements Backend.
func (c *Client) CreateNetwork(ctx context.Context, req CreateNetwork) (Network, error) {
	return call[Network](ctx, c, http.MethodPost, "/v1/networks", nil, req)
}

// Networks implements Backend.
func (c *Client) Networks(ctx context.Context) ([]Network, error) {
	return call[[]Network](ctx, c, http.MethodGet, "/v1/networks", nil, nil)
}

// Network implements Backend.
func (c *Client) Network(ctx context.Context, name string) (NetworkDetail, error) {
	path, err := pathOf("network", "/v1/networks/", name, "")
	if err != nil {
		return NetworkDetail{}, err
	}
	return call[NetworkDetail](ctx, c, http.MethodGet, path, nil, nil)
}

// RemoveNetwork implements Backend.
func (c *Client) RemoveNetwork(ctx context.Context, name string) error {
	path, err := pathOf("network", "/v1/networks/", name, "")
	if err != nil {
		return err
	}
	_, err = call[struct{}](ctx, c, http.MethodDelete, path, nil, nil)
	return err
}

// AddTask implements Backend.
func (c *Client) AddTask(ctx context.Context, req AddTask) (TaskAdded, error) {
	return call[TaskAdded](ctx, c, http.MethodPost, "/v1/tasks", nil, req)
}

// RemoveTask implements Backend.
func (c *Client) RemoveTask(ctx context.Context, ref TaskRef) (Task, error) {
	return c.task(ctx, http.MethodDelete, ref, "")
}

// DrainTask implements Backend.
func (c *Client) DrainTask(ctx context.Context, ref TaskRef) (Task, error) {
	return c.task(ctx, http.MethodPost, ref, "/drain")
}

func (c *Client) task(ctx context.Context, method string, ref TaskRef, verb string) (Task, error) {
	path, err := pathOf("id", "/v1/tasks/", ref.ID, verb)
	if err != nil {
		return Task{}, err
	}
	return call[Task](ctx, c, method, path, params("network", ref.Network), nil)
}

// Tasks implements Backend.
func (c *Client) Tasks(ctx context.Context, f TaskFilter) ([]Task, error) {
	q := params("network", f.Network, "service", f.Service)
	if f.All {
		q.Set("all", "true")
	}
	return call[[]Task](ctx, c, http.MethodGet, "/v1/tasks", q, nil)
}

// Services implements Backend.
func (c *Client) Services(ctx context.Context, network string) ([]Service, error) {
	return call[[]Service](ctx, c, http.MethodGet, "/v1/services", params("network", network), nil)
}

// Service implements Backend.
func (c *Client) Service(ctx context.Context, ref ServiceRef) (ServiceDetail, error) {
	path, err := pathOf("service", "/v1/services/", ref.Name, "")
	if err != nil {
		return ServiceDetail{}, err
	}
	return call[ServiceDetail](ctx, c, http.MethodGet, path, params("network", ref.Network), nil)
}

// SetService implements Backend.
func (c *Client) SetService(ctx context.Context, ref ServiceRef, req SetService) (Service, error) {
	path, err := pathOf("service", "/v1/services/", ref.Name, "")
	if err != nil {
		return Service{}, err
	}
	return call[Service](ctx, c, http.MethodPost, path, params("network", ref.Network), req)
}

// ServiceTasks implements Backend.
func (c *Client) ServiceTasks(ctx context.Context, ref ServiceRef) ([]Task, error) {
	path, err := pathOf("service", "/v1/services/", ref.Name, "/tasks")
	if err != nil {
		return nil, err
	}
	return call[[]Task](ctx, c, http.MethodGet, path, params("network", ref.Network), nil)
}

// Resolve implements Backend.
func (c *Client) Resolve(ctx context.Context, req ResolveRequest) (Resolution, error) {
	q := params("name", req.Name, "network", req.Network, "type", req.Type)
	if req.Trace {
		q.Set("trace", "true")
	}
	return call[Resolution](ctx, c, http.MethodGet, "/v1/resolve", q, nil)
}

// LB implements Backend.
func (c *Client) LB(ctx context.Context, req LBRequest) (LBTable, error) {
	return call[LBTable](ctx, c, http.MethodGet, "/v1/lb", params("network", req.Network, "service", req.Service,
		"sandbox", req.Sandbox), nil)
}

// VerifyLB implements Backend.
func (c *Client) VerifyLB(ctx context.Context, req LBVerifyRequest) (LBVerifyReply, error) {
	return call[LBVerifyReply](ctx, c, http.MethodPost, "/v1/lb/verify", nil, req)
}

// InstallKey implements Backend.
func (c *Client) InstallKey(ctx context.Context, req KeyRequest) (KeyReply, error) {
	return c.key(ctx, "install", req)
}

// UseKey implements Backend.
func (c *Client) UseKey(ctx context.Context, req KeyRequest) (KeyReply, error) {
	return c.key(ctx, "use", req)
}

// RemoveKey implements Backend.
func (c *Client) RemoveKey(ctx context.Context, req KeyRequest) (KeyReply, error) {
	return c.key(ctx, "remove", req)
}

func (c *Client) key(ctx context.Context, verb string, req KeyRequest) (KeyReply, error) {
	return call[KeyReply](ctx, c, http.MethodPost, "/v1/keys/"+verb, nil, req)
}

// Keys implements Backend.
func (c *Client) Keys(ctx context.Context) (KeyReply, error) {
	return call[KeyReply](ctx, c, http.MethodGet, "/v1/keys", nil, nil)
}

// pathOf puts a name into a path. It checks the name first, so that none can
// reach another route.
func pathOf(field, prefix, name, suffix string) (string, error) {
	name = strings.ToLower(name)
	if err := CheckName(field, name); err != nil {
		return "", err
	}
	return url.JoinPath(prefix, name, suffix)
}
