package documents

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// unit is a systemd unit: "Section.Directive" to its values, in order.
type unit map[string][]string

// readUnit reads a unit file, as far as systemd's syntax is used in ours.
func readUnit(path string) (unit, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	u, section := unit{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			section = strings.Trim(line, "[]")
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || section == "" || strings.HasSuffix(line, `\`) {
			return nil, fmt.Errorf("%s: %q is not understood here", path, line)
		}
		u[section+"."+name] = append(u[section+"."+name], value)
	}
	return u, nil
}

// one returns a directive's last value.
func (u unit) one(directive string) string {
	if all := u[directive]; len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

// words returns all words of a directive.
func (u unit) words(directive string) []string {
	return strings.Fields(strings.Join(u[directive], " "))
}

// How the stand-in for systemd treats each directive: what it does with it, or why
// it does nothing.
var directives = map[string]string{
	"Unit.Description":                 "text",
	"Unit.Documentation":               "the file must be there",
	"Unit.Wants":                       "order at boot: there is one unit only",
	"Unit.After":                       "order at boot: there is one unit only",
	"Unit.StartLimitIntervalSec":       "0: restarts without end, as the stand-in does",
	"Service.ExecStartPre":             "runs, outside of the sandbox with +",
	"Service.ExecStart":                "runs in the sandbox",
	"Service.ExecReload":               "runs with MAINPID",
	"Service.Restart":                  "on-failure",
	"Service.RestartPreventExitStatus": "as it says",
	"Service.RestartSec":               "as it says",
	"Service.KillMode":                 "mixed: SIGTERM to the main process",
	"Service.TimeoutStopSec":           "then SIGKILL",
	"Service.StateDirectory":           "made below /var/lib, writable",
	"Service.RuntimeDirectory":         "made below /run, writable, removed at the end",
	"Service.RuntimeDirectoryPreserve": "restart: kept over one",
	"Service.UMask":                    "umask",
	"Service.CapabilityBoundingSet":    "setpriv",
	"Service.NoNewPrivileges":          "setpriv",
	"Service.ProtectSystem":            "strict: every mount read-only but /dev, /proc and /sys",
	"Service.ReadWritePaths":           "bound writable",
	"Service.ProtectHome":              "empty directories",
	"Service.PrivateTmp":               "an empty /tmp",
	"Service.LimitNOFILE":              "prlimit",
	"Service.RestrictSUIDSGID":         "a filter of system calls: not done",
	"Service.RestrictRealtime":         "a filter of system calls: not done",
	"Service.LockPersonality":          "a filter of system calls: not done",
	"Service.MemoryDenyWriteExecute":   "a filter of system calls: not done",
	"Install.WantedBy":                 "enable makes the link",
}

// TestUnitUnderstood checks that the stand-in knows all that the shipped unit says,
// and that systemd itself finds nothing wrong with it.
func TestUnitUnderstood(t *testing.T) {
	u, err := readUnit(repository + "/examples/systemd/meshd.service")
	if err != nil {
		t.Fatal(err)
	}
	for name := range u {
		if directives[name] == "" {
			t.Errorf("the unit has %s, of which the stand-in knows nothing", name)
		}
	}
	for name := range directives {
		if _, used := u[name]; !used {
			t.Errorf("the unit has no %s any more", name)
		}
	}
	for directive, want := range map[string]string{
		"Service.Restart": "on-failure", "Service.KillMode": "mixed", "Service.ProtectSystem": "strict",
		"Service.RuntimeDirectoryPreserve": "restart",
		"Service.NoNewPrivileges":          "yes", "Service.ProtectHome": "yes", "Service.PrivateTmp": "yes",
		"Unit.StartLimitIntervalSec": "0",
	} {
		if got := u.one(directive); got != want {
			t.Errorf("%s=%s; the stand-in does %s only", directive, got, want)
		}
	}
}

// confinement is the script in which the stand-in starts a service: it gets the
// program and its arguments. $rw are the directories that stay writable.
const confinement = `set -eu
mount --make-rslave /
for d in /root /home /run/user; do
  if [ -d $d ]; then mount -t tmpfs -o mode=000,ro none $d; fi
done
for d in /tmp /var/tmp; do
  if [ -d $d ]; then mount -t tmpfs -o mode=1777 none $d; fi
done
for d in $rw; do mount --bind $d $d; done
while read -r _ _ _ _ at _; do
  writable=
  for d in $rw /tmp /var/tmp /dev /proc /sys; do case $at/ in $d/*) writable=yes ;; esac; done
  [ "$writable" ] || mount -o remount,bind,ro "$at" 2>/dev/null || [ ! -e "$at" ] || [ "$at" = /mnt ] || echo "stand-in: $at stays writable" >&2
done < /proc/self/mountinfo
umask $umask
most=$(ulimit -Hn) # where a test may not raise it
[ "$most" = unlimited ] || [ "$most" -ge "$nofile" ] || nofile=$most
exec prlimit --nofile=$nofile setpriv --no-new-privs --inh-caps -all --bounding-set "$caps" -- "$@"
`

// confined returns the command line and the environment that start a service's
// program as the unit says.
func (u unit) confined(program []string) (argv, env []string) {
	rw := []string{}
	for _, d := range u.words("Service.StateDirectory") {
		rw = append(rw, "/var/lib/"+d)
	}
	for _, d := range u.words("Service.RuntimeDirectory") {
		rw = append(rw, "/run/"+d)
	}
	for _, d := range u.words("Service.ReadWritePaths") {
		d, optional := strings.CutPrefix(d, "-")
		if _, err := os.Stat(d); err == nil || !optional {
			rw = append(rw, d)
		}
	}
	caps := []string{"-all"}
	for _, c := range u.words("Service.CapabilityBoundingSet") {
		caps = append(caps, "+"+strings.ToLower(strings.TrimPrefix(c, "CAP_")))
	}
	argv = append([]string{"unshare", "--mount", "--propagation", "unchanged", "sh", "-c", confinement, "sh"}, program...)
	env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "rw=" + strings.Join(rw, " "),
		"umask=" + u.one("Service.UMask"),
		"nofile=" + u.one("Service.LimitNOFILE"), "caps=" + strings.Join(caps, ","),
	}
	return slices.Clip(argv), env
}
