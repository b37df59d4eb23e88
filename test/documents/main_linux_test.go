package documents

import (
	"os"
	"path/filepath"
	"testing"

	"meshd/test/fleet"
	"meshd/test/rig"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "systemctl" {
		os.Exit(systemctl(os.Args[1:]))
	}
	os.Exit(rig.TestMain(prepare, m.Run))
}

// prepare builds meshd and meshctl, and makes the directory of programs that stand
// in for what an empty host lacks.
func prepare(dir string) error {
	standIns := filepath.Join(dir, "stand-ins")
	if err := os.Mkdir(standIns, 0o755); err != nil {
		return err
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"systemctl": self, "scp": []byte(scp)} {
		if err := os.WriteFile(filepath.Join(standIns, name), text, 0o755); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(standIns, "machines"), 0o755); err != nil {
		return err
	}
	return fleet.Build(dir)
}

// scp stands in for that of ssh between the hosts of a test. Each host is a file in
// the directory machines, named by its address, with its process in it.
const scp = `#!/bin/sh
# scp -p FILE root@ADDRESS:FILE
set -eu
[ $# = 3 ] && [ "$1" = -p ]
to=${3#root@}
exec nsenter --target "$(cat /usr/local/sbin/machines/${to%%:*})" --mount sh -c 'cat > "$1" && chmod "$2" "$1"' sh "${to#*:}" "$(stat -c %a "$2")" < "$2"
`
