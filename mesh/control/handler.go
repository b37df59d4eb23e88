package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"time"
)

// Limits of one request.
const (
	maxBody    = 64 << 10
	quickLimit = 10 * time.Second // what one node answers by itself
	meshLimit  = 60 * time.Second // what asks the other nodes
	sendLimit  = 60 * time.Second // how long a client may take to read a reply
	watchStall = 30 * time.Second // how long a watcher may not read
	bodyLimit  = 10 * time.Second // how long a client may take to send a body
)

type handler struct {
	backend Backend
	log     *slog.Logger
	stop    <-chan struct{} // closed when watches must end; nil: never
	limits  limits
	watches atomic.Int64 // how many are connected now
	mux     *http.ServeMux
	known   []string // the patterns of the routes
}

// newHandler returns a handler that serves the API over b. It is safe for
// concurrent use, and bounds the size and the duration of every request but the
// duration of a watch, which ends when stop is closed.
func newHandler(b Backend, log *slog.Logger, stop <-chan struct{}, lim limits) *handler {
	h := &handler{backend: b, log: log, stop: stop, limits: lim, mux: http.NewServeMux()}
	h.routes()
	h.mux.HandleFunc("/", h.noRoute)
	return h
}

// ServeHTTP keeps a defect in a Backend from ending more than its request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(v)
		}
		h.log.Error("control request panicked", "method", r.Method, "path", r.URL.Path, "panic", v)
		h.fail(w, r, fmt.Errorf("defect in meshd: %v", v))
	}()
	// The body is read whatever the route: otherwise the server would wait for it
	// after the reply, without a limit.
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(h.limits.body + sendLimit)) // a ResponseWriter without deadlines is a test's
	if err := h.readBody(w, r, rc); err != nil {
		h.fail(w, r, err)
		return
	}
	defer beginAnswer(r.Context())()
	if overBound(r.Context()) {
		w.Header().Set("Connection", "close")
		h.fail(w, r, Refuse(CodeBusy, "try again in a moment; meshctl waits for nothing by itself",
			"meshd answers as many requests as it can at once"))
		return
	}
	h.mux.ServeHTTP(w, r)
}

func (h *handler) route(pattern string, f http.HandlerFunc) {
	h.known = append(h.known, pattern)
	h.mux.HandleFunc(pattern, f)
}

// handle registers a route that answers with JSON within the limit. params are
// the query parameters of the route; any other is refused.
func (h *handler) handle(pattern string, limit time.Duration, params []string, f func(r *http.Request) (any, error)) {
	h.route(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(limit + sendLimit))
		if err := checkQuery(r, params); err != nil {
			h.fail(w, r, err)
			return
		}
		reply, err := f(r.WithContext(ctx))
		if err != nil {
			h.fail(w, r, err)
			return
		}
		h.send(w, r, http.StatusOK, reply)
	})
}

// readBody replaces the body of r by its content in memory. Its deadline is
// lifted once the body is read. The server goes on reading to notice a client
// that disconnects, and the deadline would then end the request.
func (h *handler) readBody(w http.ResponseWriter, r *http.Request, rc *http.ResponseController) error {
	_ = rc.SetReadDeadline(time.Now().Add(h.limits.body))
	body := r.Body
	if r.ContentLength > maxBody {
		// The header says that the body is too long, so none of it is read. But the
		// server gives a client the time to read the reply only after a
		// MaxBytesReader was exceeded; blanks exceed it.
		body = io.NopCloser(strings.NewReader(strings.Repeat(" ", maxBody+1)))
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, body, maxBody))
	if err != nil {
		w.Header().Set("Connection", "close") // the deadline stays, so that nothing waits for the rest
		_ = rc.SetReadDeadline(time.Now())
	}
	if isTimeout(err) {
		return Refuse(CodeTimeout, "send the body at once", "body: not complete after %v", h.limits.body)
	}
	if err != nil {
		return decodeError(err)
	}
	_ = rc.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(b))
	return nil
}

func (h *handler) send(w http.ResponseWriter, r *http.Request, status int, reply any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(emptyForNil(reply)); err != nil {
		h.log.Error("control reply not encoded", "path", r.URL.Path, "error", err)
		http.Error(w, `{"code":"internal","message":"reply not encoded"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(b.Len()))
	w.WriteHeader(status)
	if _, err := w.Write(b.Bytes()); err != nil {
		h.log.Debug("control reply not sent", "path", r.URL.Path, "error", err)
	}
	// Flush before the request counts as answered and its connection as waiting.
	_ = http.NewResponseController(w).Flush()
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, fault := asError(err)
	if fault {
		h.log.Error("control request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	status, ok := statusOf[e.Code]
	if !ok {
		status = http.StatusUnprocessableEntity
	}
	h.send(w, r, status, e)
}

// noRoute answers what no route matches: a wrong method or a wrong path.
func (h *handler) noRoute(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := h.mux.Handler(probe); pattern != "/" {
			allow = append(allow, method)
		}
	}
	if len(allow) == 0 {
		h.fail(w, r, Refuse(CodeNotFound, "docs/API.md lists the routes; meshctl and meshd may be of different versions",
			"no route %s %s", r.Method, r.URL.Path))
		return
	}
	methods := strings.Join(allow, ", ")
	w.Header().Set("Allow", methods)
	h.fail(w, r, Refuse(CodeMethod, "use "+methods, "%s has no method %s", r.URL.Path, r.Method))
}

// emptyForNil returns v with empty slices in place of nil ones, so that a list
// in the JSON is [], never null.
func emptyForNil(v any) any {
	if v == nil {
		return struct{}{}
	}
	p := reflect.New(reflect.TypeOf(v))
	p.Elem().Set(reflect.ValueOf(v))
	fillNil(p.Elem())
	return p.Interface()
}

func fillNil(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range v.Fields() {
			if f.CanSet() {
				fillNil(f)
			}
		}
	case reflect.Slice:
		if v.IsNil() {
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		}
		if k := v.Type().Elem().Kind(); k == reflect.Struct {
			for i := range v.Len() {
				fillNil(v.Index(i))
			}
		}
	}
}
