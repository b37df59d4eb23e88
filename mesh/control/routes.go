package control

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"meshd/state"
)

func (h *handler) routes() {
	h.nodeRoutes()
	h.networkRoutes()
	h.taskRoutes()
	h.serviceRoutes()
	h.sandboxRoutes()
	h.sourceRoutes()
	h.keyRoutes()
	h.route("GET /v1/watch", h.watch)
	h.route("GET /v1/metrics", h.metrics)
}

func (h *handler) nodeRoutes() {
	h.handle("GET /v1/version", quickLimit, nil, func(r *http.Request) (any, error) {
		return h.backend.Version(r.Context())
	})
	h.handle("GET /v1/status", quickLimit, nil, func(r *http.Request) (any, error) {
		return h.backend.Status(r.Context())
	})
	h.handle("GET /v1/doctor", quickLimit, nil, func(r *http.Request) (any, error) {
		return h.backend.Doctor(r.Context())
	})
	h.handle("GET /v1/nodes", quickLimit, nil, func(r *http.Request) (any, error) {
		return h.backend.Nodes(r.Context())
	})
	h.handle("POST /v1/join", meshLimit, nil, func(r *http.Request) (any, error) {
		var req JoinRequest
		if err := decode(r, &req); err != nil {
			return nil, err
		}
		if _, err := req.Parse(); err != nil {
			return nil, err
		}
		return h.backend.Join(r.Context(), req)
	})
	h.handle("POST /v1/leave", meshLimit, nil, func(r *http.Request) (any, error) {
		return h.backend.Leave(r.Context())
	})
	h.handle("GET /v1/diff", meshLimit, []string{"network"}, func(r *http.Request) (any, error) {
		network, err := networkParam(r)
		if err != nil {
			return nil, err
		}
		return h.backend.Diff(r.Context(), DiffRequest{Network: network})
	})
	h.handle("GET /v1/spread", meshLimit, []string{"network"}, func(r *http.Request) (any, error) {
		network, err := networkParam(r)
		if err != nil {
			return nil, err
		}
		return h.backend.Spread(r.Context(), SpreadRequest{Network: network})
	})
}

func (h *handler) networkRoutes() {
	h.handle("GET /v1/networks", quickLimit, nil, func(r *http.Request) (any, error) {
		return h.backend.Networks(r.Context())
	})
	h.handle("POST /v1/networks", quickLimit, nil, func(r *http.Request) (any, error) {
		var req CreateNetwork
		if err := decode(r, &req); err != nil {
			return nil, err
		}
		if _, err := req.Parse(); err != nil {
			return nil, err
		}
		return h.backend.CreateNetwork(r.Context(), req)
	})
	h.handle("GET /v1/networks/{network}", quickLimit, nil, func(r *http.Request) (any, error) {
		name, err := pathName(r, "network")
		if err != nil {
			return nil, err
		}
		return h.backend.Network(r.Context(), name)
	})
	h.handle("DELETE /v1/networks/{network}", quickLimit, nil, func(r *http.Request) (any, error) {
		name, err := pathName(r, "network")
		if err != nil {
			return nil, err
		}
		return nil, h.backend.RemoveNetwork(r.Context(), name)
	})
}

func (h *handler) taskRoutes() {
	h.handle("GET /v1/tasks", quickLimit, []string{"network", "service", "all"}, func(r *http.Request) (any, error) {
		f, err := taskFilter(r)
		if err != nil {
			return nil, err
		}
		return h.backend.Tasks(r.Context(), f)
	})
	h.handle("POST /v1/tasks", quickLimit, nil, func(r *http.Request) (any, error) {
		var req AddTask
		if err := decode(r, &req); err != nil {
			return nil, err
		}
		if _, err := req.Parse(); err != nil {
			return nil, err
		}
		return h.backend.AddTask(r.Context(), req)
	})
	h.taskRoute("DELETE /v1/tasks/{id}", h.backend.RemoveTask)
	h.taskRoute("POST /v1/tasks/{id}/drain", h.backend.DrainTask)
}

func (h *handler) taskRoute(pattern string, f func(context.Context, TaskRef) (Task, error)) {
	h.handle(pattern, quickLimit, []string{"network"}, func(r *http.Request) (any, error) {
		id, err := pathName(r, "id")
		if err != nil {
			return nil, err
		}
		network, err := networkParam(r)
		if err != nil {
			return nil, err
		}
		return f(r.Context(), TaskRef{ID: id, Network: network})
	})
}

func (h *handler) serviceRoutes() {
	h.handle("GET /v1/services", quickLimit, []string{"network"}, func(r *http.Request) (any, error) {
		network, err := networkParam(r)
		if err != nil {
			return nil, err
		}
		return h.backend.Services(r.Context(), network)
	})
	h.handle("GET /v1/services/{service}", quickLimit, []string{"network"}, func(r *http.Request) (any, error) {
		ref, err := serviceRef(r)
		if err != nil {
			return nil, err
		}
		return h.backend.Service(r.Context(), ref)
	})
	h.handle("POST /v1/services/{service}", quickLimit, []string{"network"}, func(r *http.Request) (any, error) {
		ref, err := serviceRef(r)
		if err != nil {
			return nil, err
		}
		var req SetService
		if err := decode(r, &req); err != nil {
			return nil, err
		}
		if _, err := req.Apply(state.Settings{}); err != nil {
			return nil, err
		}
		return h.backend.SetService(r.Context(), ref, req)
	})
	h.handle("GET /v1/services/{service}/tasks", quickLimit, []string{"network"}, func(r *http.Request) (any, error) {
		ref, err := serviceRef(r)
		if err != nil {
			return nil, err
		}
		return h.backend.ServiceTasks(r.Context(), ref)
	})
	h.handle("GET /v1/resolve", quickLimit, []string{"name", "network", "type", "trace"},
		func(r *http.Request) (any, error) {
			req, err := resolveRequest(r)
			if err != nil {
				return nil, err
			}
			return h.backend.Resolve(r.Context(), req)
		})
	h.handle("GET /v1/lb", quickLimit, []string{"network", "service", "sandbox"}, func(r *http.Request) (any, error) {
		q := r.URL.Query()
		req := LBRequest{
			Network: strings.ToLower(q.Get("network")), Service: strings.ToLower(q.Get("service")),
			Sandbox: q.Get("sandbox"),
		}
		if err := req.Check(); err != nil {
			return nil, err
		}
		return h.backend.LB(r.Context(), req)
	})
	h.handle("POST /v1/lb/verify", meshLimit, nil, func(r *http.Request) (any, error) {
		var req LBVerifyRequest
		if err := decode(r, &req); err != nil {
			return nil, err
		}
		if err := req.Check(); err != nil {
			return nil, err
		}
		return h.backend.VerifyLB(r.Context(), req)
	})
}

func (h *handler) keyRoutes() {
	h.handle("GET /v1/keys", meshLimit, nil, func(r *http.Request) (any, error) {
		return h.backend.Keys(r.Context())
	})
	h.keyRoute("POST /v1/keys/install", h.backend.InstallKey)
	h.keyRoute("POST /v1/keys/use", h.backend.UseKey)
	h.keyRoute("POST /v1/keys/remove", h.backend.RemoveKey)
}

func (h *handler) keyRoute(pattern string, f func(context.Context, KeyRequest) (KeyReply, error)) {
	h.handle(pattern, meshLimit, nil, func(r *http.Request) (any, error) {
		var req KeyRequest
		if err := decode(r, &req); err != nil {
			return nil, err
		}
		if _, _, err := req.Parse(); err != nil {
			return nil, err
		}
		return f(r.Context(), req)
	})
}

// metrics passes the metrics on, all or nothing.
func (h *handler) metrics(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), quickLimit)
	defer cancel()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(quickLimit + sendLimit))
	var b bytes.Buffer
	if err := h.backend.Metrics(ctx, &b); err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	_, _ = w.Write(b.Bytes()) // the client went away
	_ = http.NewResponseController(w).Flush()
}

// watch sends one line of JSON per event, each flushed at once. The stream has
// no end of its own; it ends with the client, the node, or a reader that
// stalls.
func (h *handler) watch(w http.ResponseWriter, r *http.Request) {
	req, err := watchRequest(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	defer h.watches.Add(-1)
	if n := h.watches.Add(1); n > int64(h.limits.watchers) {
		h.fail(w, r, Refuse(CodeBusy, "end other watches (meshctl watch, or programs that use /v1/watch), then try again",
			"%d watchers are connected, and more are not allowed", n-1))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if h.stop != nil {
		go func() {
			select {
			case <-h.stop:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	rc, enc, started := http.NewResponseController(w), json.NewEncoder(w), false
	enc.SetEscapeHTML(false)
	err = h.backend.Watch(ctx, req, func(e Event) error {
		if !started {
			w.Header().Set("Content-Type", "application/x-ndjson")
			started = true
		}
		_ = rc.SetWriteDeadline(time.Now().Add(watchStall))
		if err := enc.Encode(e); err != nil {
			return err
		}
		return rc.Flush()
	})
	if !started {
		h.fail(w, r, err)
		return
	}
	h.log.Debug("watch ended", "reason", err)
}
