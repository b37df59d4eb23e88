package docker

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"

	"meshd/mesh/control"
	"meshd/mesh/health"
)

// prefix begins the labels that are meant for meshd.
const prefix = "mesh."

// checkLabel defines a check in one line; labels that begin with it and a dot, its
// fields.
const checkLabel = prefix + "check"

// The bounds of what labels may ask for.
const (
	maxLabels = 128  // of one container that are meant for meshd
	maxValue  = 4096 // bytes of one of them
	maxList   = 64   // elements of a list
	maxShown  = 64   // bytes of a value that a message shows
)

// The labels that other programs set.
const (
	composeProject = "com.docker.compose.project"
	composeService = "com.docker.compose.service"
	composeNumber  = "com.docker.compose.container-number"
	composeOneOff  = "com.docker.compose.oneoff"
)

// The places of a task's address, as mesh.address names them.
const (
	addressNode    = "node"     // the node's, with the ports that the container publishes there
	addressNetwork = "network:" // the one of a network of the engine
)

// request is what the labels of a container ask for.
type request struct {
	networks []string          // in which the container is found
	task     control.AddTask   // without network, id, name and addresses
	address  string            // as given; "": the container's own
	sandbox  bool              // attach it
	compose  bool              // take Compose's names
	disabled bool              // leave the container alone
	oneOff   bool              // of compose run
	warnings []string          // what was passed over, for people
	check    []byte            // that checks come to, as the sink keeps it
	checks   map[string]string // labels of checks, without what all of them begin with
}

// setters take the value of each label. docs/DOCKER.md has a table of them.
var setters = map[string]func(r *request, value string) error{
	"mesh.enable": func(r *request, v string) error {
		on, err := boolean(v)
		r.disabled = !on
		return err
	},
	"mesh.network": func(r *request, v string) (err error) {
		r.networks, err = list(v)
		return err
	},
	"mesh.service":  func(r *request, v string) error { r.task.Service = v; return nil },
	"mesh.slot":     setSlot,
	"mesh.port":     func(r *request, v string) (err error) { r.task.Ports, err = list(v); return err },
	"mesh.alias":    func(r *request, v string) (err error) { r.task.Aliases, err = list(v); return err },
	"mesh.hostname": func(r *request, v string) error { r.task.Hostname = v; return nil },
	"mesh.address":  func(r *request, v string) error { r.address = v; return nil },
	"mesh.weight":   setWeight,
	"mesh.vip":      func(r *request, v string) (err error) { r.task.VIPs, err = list(v); return err },
	"mesh.mode":     func(r *request, v string) error { r.task.Mode = v; return nil },
	"mesh.scheduler": func(r *request, v string) error {
		r.task.Scheduler = v
		return nil
	},
	"mesh.ttl":     func(r *request, v string) error { r.task.TTL = v; return nil },
	"mesh.sandbox": func(r *request, v string) (err error) { r.sandbox, err = boolean(v); return err },
	"mesh.compose": func(r *request, v string) (err error) { r.compose, err = boolean(v); return err },
}

func setSlot(r *request, v string) error {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n == 0 {
		return fmt.Errorf("%s is not a slot; write a number from 1", shown(v))
	}
	r.task.Slot = uint32(n)
	return nil
}

func setWeight(r *request, v string) error {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%s is not a weight; write a number from 1 to 65535", shown(v))
	}
	r.task.Weight = uint16(n)
	return nil
}

var errNoValue = errors.New("it has no value; give one, or leave it out")

// parseLabels reads what labels ask for. ours is false for a container that has no word
// for meshd. The error says which label cannot be followed, and what to write instead.
func parseLabels(labels map[string]string) (r request, ours bool, err error) {
	var names []string
	for name := range labels {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return r, false, nil
	}
	if len(names) > maxLabels {
		return r, true, fmt.Errorf("%d labels begin with %s, at most %d are read", len(names), prefix, maxLabels)
	}
	slices.Sort(names)
	var wrong []string
	for _, name := range names {
		if err := r.set(name, labels[name]); err != nil {
			wrong = append(wrong, fmt.Sprintf("label %s: %v", name, err))
		}
	}
	r.oneOff = strings.EqualFold(labels[composeOneOff], "true")
	if r.compose {
		r.takeCompose(labels)
	}
	if r.check, err = r.makeCheck(); err != nil {
		wrong = append(wrong, err.Error())
	}
	if err = r.complete(); err != nil {
		wrong = append(wrong, err.Error())
	}
	err = nil
	if len(wrong) > 0 {
		err = errors.New(strings.Join(wrong, "; "))
	}
	return r, true, err
}

// set takes one label.
func (r *request) set(name, value string) error {
	if len(value) > maxValue {
		return fmt.Errorf("it has %d bytes, at most %d", len(value), maxValue)
	}
	if name == checkLabel || strings.HasPrefix(name, checkLabel+".") {
		if r.checks == nil {
			r.checks = map[string]string{}
		}
		r.checks[strings.TrimPrefix(strings.TrimPrefix(name, checkLabel), ".")] = value
		return nil
	}
	set := setters[name]
	if set == nil {
		r.warnings = append(r.warnings, fmt.Sprintf("label %s is not known%s", shown(name), suggestion(name)))
		return nil
	}
	if value = strings.TrimSpace(value); value == "" {
		return errNoValue
	}
	return set(r, value)
}

// makeCheck makes the check that labels define, in the encoding of the sink; nil: none.
func (r *request) makeCheck() ([]byte, error) {
	if len(r.checks) == 0 {
		return nil, nil
	}
	d, err := health.FromLabels(r.checks)
	if err == nil {
		var all []*health.Check
		if all, err = health.ParseAll([]health.Definition{d}); err == nil {
			return health.Encode(all), nil
		}
	}
	if e, ok := errors.AsType[*health.FieldError](err); ok {
		field := strings.TrimPrefix(e.Field, "checks[0].")
		return nil, fmt.Errorf("label %s: %s; %s", strings.TrimSuffix(checkLabel+"."+field, ".check"), e.Problem, e.Fix)
	}
	return nil, fmt.Errorf("label %s: %w", checkLabel, err)
}

// suggestion names the label that was probably wanted.
func suggestion(name string) string {
	best, least := "", 4 // with more edits it is another word
	for _, known := range slices.Sorted(maps.Keys(setters)) {
		if len(name) > 2*len(known) {
			continue
		}
		if d := levenshtein.ComputeDistance(name, known); d < least {
			best, least = known, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// takeCompose fills in the names that Compose gives.
func (r *request) takeCompose(labels map[string]string) {
	if len(r.networks) == 0 && labels[composeProject] != "" {
		r.networks = []string{labels[composeProject]}
	}
	if r.task.Service == "" {
		r.task.Service = labels[composeService]
	}
	if n, err := strconv.ParseUint(labels[composeNumber], 10, 32); err == nil && r.task.Slot == 0 {
		r.task.Slot = uint32(n)
	}
}

// complete says what is missing.
func (r *request) complete() error {
	switch {
	case r.disabled || r.oneOff:
		return nil
	case len(r.networks) == 0 && r.task.Service == "" && !r.sandbox:
		return errors.New("label mesh.network is missing, and mesh.service: nothing says what the container is")
	case len(r.networks) == 0:
		return errors.New("label mesh.network is missing: name the networks in which the container is found")
	case r.task.Service == "" && !r.sandbox:
		return errors.New("label mesh.service is missing: name the service that the container is a task of")
	}
	return nil
}

// list reads elements between commas or spaces.
func list(value string) ([]string, error) {
	all := strings.FieldsFunc(value, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' || c == '\n' })
	switch {
	case len(all) == 0:
		return nil, errNoValue
	case len(all) > maxList:
		return nil, fmt.Errorf("it has %d elements, at most %d", len(all), maxList)
	}
	return all, nil
}

// boolean reads a switch.
func boolean(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", shown(value))
}

// shown quotes what a container's author wrote, as much of it as fits a line.
func shown(s string) string {
	if len(s) > maxShown {
		s = s[:maxShown] + "…"
	}
	return strconv.Quote(s)
}
