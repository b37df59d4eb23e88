//go:build linux

package hostkind

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"meshd/test/rig"
)

// Kind is a kind of host.
type Kind struct {
	Name  string // for flags and names of tests
	Title string // for people, in a table
	// NoIPv6 says that the host has no IPv6, and Reloads that its ruleset is saved,
	// flushed and loaded again whenever it serves ([Reload]).
	NoIPv6, Reloads bool

	bridge   string // of its containers; empty: tasks
	filtered bool   // bridges hand their packets to filters
	needs    []string
	make     func(*rig.Host) error
}

// ErrMissing is wrapped by errors of kinds for which a program is not there.
var ErrMissing = errors.New("not installed")

// All returns every kind, in the order of docs/OPERATIONS.md.
func All() []Kind {
	return []Kind{
		{Name: "debian", Title: "Debian's defaults", make: nothing},
		{Name: "strict", Title: "rp_filter strict", make: strict},
		{Name: "bridged", Title: "br_netfilter, no hairpin", filtered: true, make: nothing},
		{
			Name: "docker", Title: "Docker", filtered: true, bridge: "docker0",
			needs: []string{"dockerd", "containerd", "iptables", "unshare"}, make: docker,
		},
		{
			Name: "beside-docker", Title: "beside Docker", filtered: true,
			needs: []string{"dockerd", "containerd", "iptables", "unshare"}, make: docker,
		},
		{Name: "ufw", Title: "ufw", needs: []string{"ufw", "iptables", "unshare"}, make: ufw},
		{
			Name: "firewalld", Title: "firewalld", needs: []string{"firewalld", "firewall-cmd", "dbus-daemon", "nft", "unshare"},
			make: firewalld,
		},
		{Name: "dropping", Title: "default drop, documented rules", needs: []string{"nft"}, make: dropping},
		{Name: "no-ipv6", Title: "no IPv6", NoIPv6: true, make: noIPv6},
		{Name: "restored", Title: "saved and restored", Reloads: true, needs: []string{"nft"}, make: nothing},
	}
}

func nothing(*rig.Host) error { return nil }

// Named returns the kind of that name.
func Named(name string) (Kind, error) {
	var names []string
	for _, k := range All() {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return Kind{}, fmt.Errorf("there is no kind of host %q, but %s", name, strings.Join(names, ", "))
}

// Missing says which program the kind needs and is not there, as an error that wraps
// ErrMissing; nil: none.
func (k Kind) Missing() error {
	switch {
	case saved(k.Name) != "":
		return nil
	case os.Getenv(SavedEnv) != "" && k.HasPrograms():
		return fmt.Errorf("a host of kind %s: %w", k.Name, missing("what was saved of it"))
	}
	for _, program := range k.needs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("a host of kind %s: %w", k.Name, missing(program))
		}
	}
	return nil
}

// AddHost puts a host of the kind on the rig's switch. What the kind does not set
// up is as the kernel has it: nothing is forwarded, ports of bridges are not in
// hairpin mode, messages of ICMP are limited. The error wraps ErrMissing if a
// program is not installed.
func (k Kind) AddHost(r *rig.Rig, name string) (*rig.Host, error) {
	if err := k.Missing(); err != nil {
		return nil, err
	}
	saved := saved(k.Name)
	bridge := k.bridge
	if bridge == "" {
		bridge = "tasks"
	}
	h, err := r.AddBareHost(name, bridge)
	if err != nil {
		return nil, err
	}
	if err = bridged(h, k.filtered); err != nil {
		return nil, err
	}
	if saved != "" {
		err = load(h, saved)
	} else {
		err = k.make(h)
	}
	if err != nil {
		return nil, fmt.Errorf("make %s a host of kind %s: %w", name, k.Name, err)
	}
	return h, nil
}

// missing says that a part is not there.
func missing(what string) error { return fmt.Errorf("%s is %w", what, ErrMissing) }

// output is [rig.Namespace.Output] with what the program said of its failure.
func output(h *rig.Host, program string, args ...string) (string, error) {
	out, err := h.Output(program, args...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%s: %w: %s%s", program, err, out, exit.Stderr)
	}
	return string(out), err
}
