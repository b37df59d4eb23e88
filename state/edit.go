package state

// This file edits record bodies that came from a peer, a disk or a newer
// version of meshd. An edit changes the fields that it names and keeps every
// other byte, so that what a newer version wrote survives a downgrade (S11).

// WithDraining returns the body of an endpoint's record with the draining flag
// set and every other field as it is, those included that this version does not
// know. The result is a new slice. The error is non-nil if body is malformed.
func WithDraining(body []byte) ([]byte, error) {
	edited := make([]byte, 0, len(body)+3)
	err := eachField(string(body), func(tag byte, v string) error {
		if tag != tagDraining {
			edited = putField(edited, tag, []byte(v)...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return putUint(edited, tagDraining, 1), nil
}

// WithHealth is WithDraining for the health.
func WithHealth(body []byte, h Health) ([]byte, error) {
	edited := make([]byte, 0, len(body)+3)
	err := eachField(string(body), func(tag byte, v string) error {
		if tag != tagHealth {
			edited = putField(edited, tag, []byte(v)...)
		}
		return nil
	})
	if err != nil || h == HealthPassing {
		return edited, err
	}
	return putUint(edited, tagHealth, uint64(h)), nil
}

// appendUnknown appends to b the fields of body with a tag above last, the
// highest tag of that kind of body in this version. A malformed rest is left out.
func appendUnknown(b []byte, body string, last byte) []byte {
	_ = eachField(body, func(tag byte, v string) error {
		if tag > last {
			b = putField(b, tag, []byte(v)...)
		}
		return nil
	})
	return b
}
