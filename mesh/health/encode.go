package health

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// ParseAll checks the definitions of one task. Checks without a name of their own that
// would share one get a number: http, http-2. The error is a *FieldError whose field
// begins with the place, as "checks[1].interval".
func ParseAll(all []Definition) ([]*Check, error) {
	if len(all) > MaxChecks {
		return nil, wrong("checks", "define fewer", "%d checks, at most %d", len(all), MaxChecks)
	}
	checks, seen := make([]*Check, len(all)), map[string]bool{}
	for i, d := range all {
		place := "checks[" + strconv.Itoa(i) + "]"
		c, err := d.Parse()
		if err != nil {
			return nil, within(place, err)
		}
		if d.Name == "" {
			for n := 2; seen[c.Definition.Name]; n++ {
				c.Definition.Name = c.Definition.Type + "-" + strconv.Itoa(n)
			}
		}
		if seen[c.Definition.Name] {
			return nil, wrong(place+".name", "give each check of a task a name of its own", "%q is given twice",
				c.Definition.Name)
		}
		seen[c.Definition.Name] = true
		checks[i] = c
	}
	return checks, nil
}

// Encode returns the definitions of checks as they are kept with a task; nil for none.
func Encode(checks []*Check) []byte {
	if len(checks) == 0 {
		return nil
	}
	all := make([]Definition, len(checks))
	for i, c := range checks {
		all[i] = c.Definition
	}
	b, _ := json.Marshal(all) // each was marshalled by Parse
	return b
}

// Decode is the inverse of Encode. What is read passes the same constructor.
func Decode(b []byte) ([]*Check, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var all []Definition
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		return nil, fmt.Errorf("checks: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("checks: there is something behind them")
	}
	return ParseAll(all)
}
