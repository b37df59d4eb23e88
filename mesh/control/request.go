package control

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"meshd/state"
)

// decode reads the one JSON object of a request's body. The error names the
// field that is wrong.
func decode(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return decodeError(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Refuse(CodeInvalid, "send one JSON object", "body: data after the JSON object")
	}
	return nil
}

func decodeError(err error) error {
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return Refuse(CodeTooLarge, "send less", "body: larger than %d bytes", e.Limit)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		return invalid(e.Field, "docs/API.md has an example", "a JSON %s cannot be %s", e.Value,
			article(e.Type.Kind().String()))
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		field, _ = strconv.Unquote(field)
		return invalid(field, "docs/API.md lists the fields; meshctl and meshd may be of different versions", "unknown field")
	}
	if errors.Is(err, io.EOF) {
		return Refuse(CodeInvalid, "send a JSON object", "body: it is empty")
	}
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return Refuse(CodeInvalid, "send a JSON object", "body: it is not a JSON object")
	}
	return Refuse(CodeInvalid, "send a JSON object", "body: not JSON: %v", err)
}

// article names a Go kind for people.
func article(kind string) string {
	switch {
	case kind == "slice":
		return "a list"
	case strings.HasPrefix(kind, "uint"):
		return "a number from 0 to 2^" + strings.TrimPrefix(kind, "uint") + "-1"
	}
	return "a " + kind
}

// checkQuery refuses query parameters that are unknown or repeated.
func checkQuery(r *http.Request, known []string) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Refuse(CodeInvalid, "escape the query parameters", "query: %v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		if !slices.Contains(known, name) {
			hint := "this route has no query parameters"
			if len(known) > 0 {
				hint = "known are " + strings.Join(known, ", ")
			}
			return invalid(name, hint, "unknown query parameter")
		}
		if len(q[name]) > 1 {
			return invalid(name, "give it once", "the query parameter is repeated")
		}
	}
	return nil
}

// pathName reads a name from the path.
func pathName(r *http.Request, field string) (string, error) {
	s := strings.ToLower(r.PathValue(field))
	return s, CheckName(field, s)
}

// networkParam reads the optional query parameter "network".
func networkParam(r *http.Request) (string, error) {
	s := strings.ToLower(r.URL.Query().Get("network"))
	if s == "" {
		return "", nil
	}
	return s, CheckName("network", s)
}

func serviceRef(r *http.Request) (ServiceRef, error) {
	name, err := pathName(r, "service")
	if err != nil {
		return ServiceRef{}, err
	}
	network := strings.ToLower(r.URL.Query().Get("network"))
	return ServiceRef{Network: network, Name: name}, CheckName("network", network)
}

func taskFilter(r *http.Request) (f TaskFilter, err error) {
	q := r.URL.Query()
	if f.Network, err = networkParam(r); err != nil {
		return f, err
	}
	if f.Service = strings.ToLower(q.Get("service")); f.Service != "" {
		if err = CheckName("service", f.Service); err != nil {
			return f, err
		}
	}
	if s := q.Get("all"); s != "" {
		if f.All, err = strconv.ParseBool(s); err != nil {
			return f, invalid("all", "use true or false", "%q is neither", s)
		}
	}
	return f, nil
}

// ResolveTypes returns the types of records that a ResolveRequest may ask for, in
// the order in which they are listed for people.
func ResolveTypes() []string { return state.RecordTypes() }

func resolveRequest(r *http.Request) (ResolveRequest, error) {
	q := r.URL.Query()
	req := ResolveRequest{
		Name: q.Get("name"), Network: strings.ToLower(q.Get("network")),
		Type: strings.ToUpper(q.Get("type")),
	}
	if s := q.Get("trace"); s != "" {
		var err error
		if req.Trace, err = strconv.ParseBool(s); err != nil {
			return req, invalid("trace", "use true or false", "%q is neither", s)
		}
	}
	return req, req.Check()
}

// Check reports what is wrong with the request, as an *Error of CodeInvalid.
func (r ResolveRequest) Check() error {
	if err := CheckName("network", r.Network); err != nil {
		return err
	}
	if r.Name == "" || len(r.Name) > state.MaxName+1 || strings.ContainsFunc(r.Name,
		func(c rune) bool { return c <= ' ' || c > '~' }) {
		return invalid("name", "write a name such as web, tasks.web or _http._tcp.web", "%.300q cannot be a DNS name", r.Name)
	}
	if strings.Contains(r.Name, "..") || strings.HasPrefix(r.Name, ".") && r.Name != "." {
		return invalid("name", "write one dot between labels", "%.300q has a label without characters", r.Name)
	}
	if _, err := netip.ParseAddr(r.Name); err != nil && strings.ContainsAny(r.Name, ":/") {
		return invalid("name", "write the name alone, without scheme, port or path", "%.300q is no name", r.Name)
	}
	if r.Type != "" && !slices.Contains(ResolveTypes(), strings.ToUpper(r.Type)) {
		return invalid("type", "use one of "+strings.Join(ResolveTypes(), ", "), "%q is not known", r.Type)
	}
	return nil
}

func watchRequest(r *http.Request) (req WatchRequest, err error) {
	if err := checkQuery(r, []string{"network", "from", "boot"}); err != nil {
		return req, err
	}
	q := r.URL.Query()
	if req.Network, err = networkParam(r); err != nil {
		return req, err
	}
	if s := q.Get("from"); s != "" {
		if req.From, err = strconv.ParseUint(s, 10, 64); err != nil {
			return req, invalid("from", "use the index of the last event seen", "%q is not a number", s)
		}
	}
	if req.Boot = q.Get("boot"); req.Boot != "" {
		if _, err := state.ParseBoot(req.Boot); err != nil {
			return req, invalidValue("boot", err)
		}
	}
	return req, nil
}
