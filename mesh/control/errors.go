package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"meshd/state"
)

// Code is the kind of an Error, for programs.
type Code string

// The codes, each with its HTTP status.
const (
	CodeInvalid     Code = "invalid"     // 400: the request is malformed; Field says where
	CodeNotFound    Code = "not-found"   // 404: no such node, network, service, task, key, route
	CodeMethod      Code = "method"      // 405: the route has no such method
	CodeConflict    Code = "conflict"    // 409: something that exists stands against it
	CodeTooLarge    Code = "too-large"   // 413: the request, or what it asks for, exceeds a limit
	CodeRefused     Code = "refused"     // 422: understood, and not done; the message says why
	CodeBusy        Code = "busy"        // 429: too many requests or watchers at once
	CodeInternal    Code = "internal"    // 500: a defect or a fault of the host
	CodeUnavailable Code = "unavailable" // 503: not now: starting, leaving, no privilege
	CodeTimeout     Code = "timeout"     // 504: it took too long
)

var statusOf = map[Code]int{
	CodeInvalid: http.StatusBadRequest, CodeNotFound: http.StatusNotFound, CodeMethod: http.StatusMethodNotAllowed,
	CodeConflict: http.StatusConflict, CodeTooLarge: http.StatusRequestEntityTooLarge,
	CodeRefused: http.StatusUnprocessableEntity, CodeInternal: http.StatusInternalServerError,
	CodeBusy: http.StatusTooManyRequests, CodeUnavailable: http.StatusServiceUnavailable,
	CodeTimeout: http.StatusGatewayTimeout,
}

// Sentinels for errors.Is; a Backend returns an *Error, which matches the one
// of its code.
var (
	ErrInvalid     error = &Error{Code: CodeInvalid, Message: "invalid"}
	ErrNotFound    error = &Error{Code: CodeNotFound, Message: "not found"}
	ErrConflict    error = &Error{Code: CodeConflict, Message: "conflict"}
	ErrRefused     error = &Error{Code: CodeRefused, Message: "refused"}
	ErrBusy        error = &Error{Code: CodeBusy, Message: "busy"}
	ErrUnavailable error = &Error{Code: CodeUnavailable, Message: "unavailable"}
)

// ErrUnreachable is wrapped by what a Client returns if no daemon answers on
// its socket, or what answers is not one.
var ErrUnreachable = errors.New("cannot reach meshd")

// ErrInUse is wrapped by what Listen returns if a daemon answers on the path.
var ErrInUse = errors.New("socket in use")

// Error is a refusal: the body of every reply that is not a success.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`         // what is wrong
	Hint    string `json:"hint,omitempty"`  // what to do next
	Field   string `json:"field,omitempty"` // of CodeInvalid: the field of the request
}

// Error returns the message, without the hint.
func (e *Error) Error() string { return e.Message }

// Is reports whether target is an *Error of the same code, so that
// errors.Is(err, ErrNotFound) works on both sides of the socket.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Refuse returns an *Error. The hint says what to do next and may be empty.
func Refuse(code Code, hint, format string, args ...any) error {
	return &Error{Code: code, Hint: hint, Message: fmt.Sprintf(format, args...)}
}

// invalid returns an *Error that names the field of a request.
func invalid(field, hint, format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Field: field, Hint: hint, Message: field + ": " + fmt.Sprintf(format, args...)}
}

// invalidValue returns an *Error of CodeInvalid for a value that package state
// refuses in a field of a request, with state's words and hint.
func invalidValue(field string, err error) *Error {
	var v *state.ValueError
	if !errors.As(err, &v) {
		return invalid(field, "", "%s", reason(err))
	}
	return invalid(field, v.Hint, "%s", v.Problem)
}

// invalidField returns an *Error of CodeInvalid for the field that a *state.FieldError
// names, whose name is the same in the request. hint is for a reason that has none.
func invalidField(err error, hint string) *Error {
	var f *state.FieldError
	if !errors.As(err, &f) {
		return invalid("", hint, "%v", err)
	}
	if e := invalidValue(f.Field, f.Reason); e.Hint != "" {
		return e
	}
	return invalid(f.Field, hint, "%s", reason(f.Reason))
}

// asError turns what a Backend returned into what goes over the wire.
// internal reports that the error is a fault to be logged.
func asError(err error) (e *Error, internal bool) {
	switch {
	case errors.As(err, &e):
		return e, e.Code == CodeInternal
	case errors.Is(err, state.ErrInvalid):
		return &Error{Code: CodeInvalid, Message: err.Error()}, false
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{
			Code: CodeTimeout, Message: "meshd took too long: " + err.Error(),
			Hint: `try again; "meshctl status" says whether the node is degraded`,
		}, false
	case errors.Is(err, context.Canceled):
		return &Error{Code: CodeUnavailable, Message: "the request was cancelled", Hint: "meshd may be stopping; try again"},
			false
	}
	return &Error{Code: CodeInternal, Message: err.Error(), Hint: "the log of meshd says more"}, true
}
