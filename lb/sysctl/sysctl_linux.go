package sysctl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"meshd/lb"
	"meshd/lb/internal/namespace"
)

// Set makes the settings true, where they are not, in the namespace of
// that path. It returns the keys that it changed, and tells of each; tell may be
// nil. The error says which setting cannot be made and
// how to make it by hand.
func Set(path string, settings []Setting, tell func(Change)) (changed []string, err error) {
	if tell == nil {
		tell = func(Change) {}
	}
	err = namespace.Inside(path, func() error {
		for _, s := range settings {
			did, err := s.set(tell)
			if err != nil {
				return err
			}
			if did {
				changed = append(changed, s.Key)
			}
		}
		return nil
	})
	return changed, err
}

func (s Setting) set(tell func(Change)) (changed bool, err error) {
	have, err := Read(s.Key)
	if errors.Is(err, os.ErrNotExist) && s.Optional || err == nil && have == s.Value {
		return false, nil
	}
	if err == nil {
		change := Change{Key: s.Key, Found: have, Set: s.Value, Dependents: dependents(s.Key, have)}
		if err = Write(s.Key, s.Value); err == nil {
			tell(change)
		}
	}
	switch setting := Dotted(s.Key) + "=" + s.Value; {
	case errors.Is(err, os.ErrNotExist):
		return false, fmt.Errorf("%w: sysctl %s: this network namespace does not have it (%w)", lb.ErrUnsupported, setting,
			err)
	case err != nil:
		return false, fmt.Errorf("%w: sysctl %s: %w; set it before meshd starts: on a host with sysctl -w %s, in a "+
			"container with its runtime's --sysctl %s",
			lb.ErrUnsupported, setting, err, setting, setting)
	}
	return true, nil
}

// Read returns a setting of the calling thread's namespace.
func Read(key string) (string, error) {
	have, err := os.ReadFile(filepath.Join("/proc/sys", key))
	return strings.TrimSpace(string(have)), err
}

// Write makes a setting of the calling thread's namespace.
func Write(key, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
}

// redirects is a setting that the kernel makes the opposite of ForwardIPv4 whenever
// that changes. Firewalls switch it off.
const redirects = "net/ipv4/conf/all/accept_redirects"

// dependents returns the devices that forward though the setting for all of them
// says that they do not, and whether redirects are accepted if not as the kernel has
// it then: whoever writes the setting for all writes those.
func dependents(key, have string) (devices []Setting) {
	family := map[string]string{ForwardIPv4: "ipv4", ForwardIPv6: "ipv6"}[key]
	if family == "" {
		return nil
	}
	files, _ := filepath.Glob("/proc/sys/net/" + family + "/conf/*/forwarding") // the pattern is right
	for _, file := range files {
		device := strings.TrimPrefix(file, "/proc/sys/")
		if is, err := Read(device); err == nil && is != have && !strings.Contains(device, "/conf/all/") {
			devices = append(devices, Setting{Key: device, Value: is, Optional: true})
		}
	}
	if is, err := Read(redirects); key == ForwardIPv4 && err == nil && is == have {
		devices = append(devices, Setting{Key: redirects, Value: is, Optional: true})
	}
	return devices
}

// Changed returns which of the changes are still there, in the calling
// thread's namespace, and says of the others what somebody else made of them.
// Those of devices that are gone are neither.
func Changed(changes []Change) (ours []Change, others []string, err error) {
	for _, c := range changes {
		is, readErr := Read(c.Key)
		switch {
		case errors.Is(readErr, os.ErrNotExist):
		case readErr != nil:
			err = errors.Join(err, fmt.Errorf("sysctl %s: %w", Dotted(c.Key), readErr))
		case is == c.Set:
			ours = append(ours, c)
		case is != c.Found:
			others = append(others, fmt.Sprintf("sysctl %s=%s: somebody else set it, after meshd found %s and set %s",
				Dotted(c.Key), is, c.Found, c.Set))
		}
	}
	return ours, others, err
}

// PutBack makes the settings as they were found, the latest first: a
// host that listens to routers only since it forwards must cease to forward
// before it ceases to insist.
func PutBack(changes []Change) error {
	var errs []error
	for _, c := range slices.Backward(changes) {
		if err := Write(c.Key, c.Found); err != nil {
			errs = append(errs, fmt.Errorf("sysctl %s=%s: %w; set it with sysctl -w", Dotted(c.Key), c.Found, err))
			continue
		}
		for _, device := range c.Dependents {
			if err := Write(device.Key, device.Value); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("sysctl %s=%s: %w; set it with sysctl -w", Dotted(device.Key), device.Value, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Check returns the settings that are not as they should be, in the
// namespace of that path.
func Check(path string, settings []Setting) (found []lb.Finding, err error) {
	if len(settings) == 0 {
		return nil, nil
	}
	err = namespace.Inside(path, func() error {
		for _, s := range settings {
			f := lb.Finding{Area: lb.AreaSysctl, Kind: lb.FindingChanged, What: "sysctl " + Dotted(s.Key), Want: s.Value}
			have, err := os.ReadFile(filepath.Join("/proc/sys", s.Key))
			switch {
			case os.IsNotExist(err) && s.Optional:
				continue
			case err != nil:
				f.Kind, f.Found = lb.FindingMissing, err.Error()
			default:
				f.Found = strings.TrimSpace(string(have))
			}
			if f.Found != s.Value {
				found = append(found, f)
			}
		}
		return nil
	})
	return found, err
}
