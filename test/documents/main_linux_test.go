package documents

import (
	"os"
	"path/filepath"
	"testing"

	"meshd/test/fleet"
	"meshd/test/rig"
)

func TestMain(m *testing.M) {
	os.Exit(rig.TestMain(prepare, m.Run))
}

// prepare builds meshd and meshctl, and makes the directory of programs that stand
// in for what an empty host lacks.
func prepare(dir string) error {
	if err := os.Mkdir(filepath.Join(dir, "stand-ins"), 0o755); err != nil {
		return err
	}
	return fleet.Build(dir)
}
