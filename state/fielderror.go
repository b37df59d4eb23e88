package state

import "errors"

// This file owns the form of an error about one field of a value.

// FieldError says which field of a value is wrong, and why. Validate, CheckName
// and their kind return it. It wraps ErrInvalid and the reason, which may be a
// *ValueError with a hint.
type FieldError struct {
	Field  string // as in the API: "id", "aliases", "subnet6"
	Reason error  // without the name of the field
}

// Error returns the field and the reason.
func (e *FieldError) Error() string {
	return ErrInvalid.Error() + ": " + e.Field + ": " + e.Reason.Error()
}

// Unwrap returns ErrInvalid and the reason.
func (e *FieldError) Unwrap() []error { return []error{ErrInvalid, e.Reason} }

// fieldError says that a field is wrong; nil if reason is nil. The name of the
// field replaces the one that reason has, if it is a *FieldError itself.
func fieldError(field string, reason error) error {
	if inner, ok := errors.AsType[*FieldError](reason); ok {
		reason = inner.Reason
	}
	if reason == nil {
		return nil
	}
	return &FieldError{Field: field, Reason: reason}
}
