//go:build linux

package fleet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BinEnv names a directory with a meshd and a meshctl that are ready to run,
// for a machine that has no Go.
const BinEnv = "MESHD_BIN"

// Build compiles meshd and meshctl into dir, with the flags of make build, so
// that what either compiled serves both; or takes those of [BinEnv]. It runs
// where the machine's own network is, so that modules can be fetched.
func Build(dir string) error {
	if ready := os.Getenv(BinEnv); ready != "" {
		return link(dir, ready)
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir+string(filepath.Separator),
		"./cmd/meshd", "./cmd/meshctl")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build meshd and meshctl: %w\n%s", err, out)
	}
	return nil
}

// link puts links to programs that are ready into dir.
func link(dir, ready string) error {
	ready, err := filepath.Abs(ready)
	if err != nil {
		return err
	}
	for _, name := range []string{"meshd", "meshctl"} {
		program := filepath.Join(ready, name)
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s=%s: want a directory with meshd and meshctl, both executable: %w", BinEnv, ready, err)
		}
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module (is go on PATH?): %w", err)
	}
	file := strings.TrimSpace(string(out))
	if file == "" || file == os.DevNull {
		return "", fmt.Errorf("run this inside the meshd repository")
	}
	return filepath.Dir(file), nil
}
