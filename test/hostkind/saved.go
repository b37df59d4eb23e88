//go:build linux

package hostkind

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"meshd/test/rig"
)

// SavedEnv names the directory with what [Save] has saved of kinds of hosts, where
// their own programs do not run.
const SavedEnv = "MESHD_HOSTKINDS"

// part is a part of what the programs of a kind wrote, and how it is read and
// loaded again. The tables of iptables cannot be loaded by nft.
type part struct {
	name       string
	save, load []string
}

func parts() []part {
	return []part{
		{"ip", []string{"iptables-save"}, []string{"iptables-restore"}},
		{"ip6", []string{"ip6tables-save"}, []string{"ip6tables-restore"}},
		{"nft", []string{"nft", "-s", "list", "table", "inet"}, []string{"nft", "-f", "-"}},
	}
}

// tableOf is the table that a kind writes with nft.
func tableOf(kind string) string {
	return map[string]string{"firewalld": "firewalld", "dropping": "filter"}[kind]
}

// settingsOf are those that programs of a kind may set, of IPv4 and IPv6.
var settingsOf = []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"}

// HasPrograms says that programs write rules on a host of the kind, which can be
// saved.
func (k Kind) HasPrograms() bool { return !k.Reloads && len(k.needs) > 0 }

// Save writes what the programs of a kind have written on a host into a directory.
func (k Kind) Save(h *rig.Host, dir string) error {
	dir = filepath.Join(dir, k.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	write := func(name, text string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644) }
	for _, p := range parts() {
		args := p.save[1:]
		if p.name == "nft" {
			if tableOf(k.Name) == "" {
				continue
			}
			args = append(args, tableOf(k.Name))
		} else if tableOf(k.Name) != "" {
			continue
		}
		text, err := output(h, p.save[0], args...)
		if err == nil {
			err = write(p.name, text)
		}
		if err != nil {
			return err
		}
	}
	var lines strings.Builder
	for _, key := range settingsOf {
		text, err := output(h, "cat", "/proc/sys/"+strings.ReplaceAll(key, ".", "/"))
		if err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%s %s", key, text)
	}
	return write("settings", lines.String())
}

// saved returns the directory with what the programs of a kind wrote elsewhere;
// empty: they are to run here.
func saved(kind string) string {
	dir := os.Getenv(SavedEnv)
	if dir == "" {
		return ""
	}
	dir = filepath.Join(dir, kind)
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// load does to a host what programs did to the one that was saved.
func load(h *rig.Host, dir string) error {
	for _, p := range parts() {
		text, err := os.ReadFile(filepath.Join(dir, p.name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = feed(h, string(text), p.load[0], p.load[1:]...)
		}
		if err != nil {
			return err
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "settings"))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 {
			err = errors.Join(err, h.Sysctl(f[0], f[1]))
		}
	}
	return err
}
