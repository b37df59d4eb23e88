package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"meshd/mesh/control"
)

func doctorCommand() command {
	return command{
		path: "doctor", short: "find what of this host is against meshd, with the command that mends it", setup: doctor,
		long: `Firewalls that drop what is meant for VIPs, containers, names or gossip; forwarding,
hairpin mode and IPv6 that are off; others who balance the same addresses; a full table
of connections. The meshd that runs is asked; without one, "meshd doctor" looks as one
with that --config would, also before the first start. The exit code is 0 if nothing
was found, and 1 if something was.`,
		example: "meshctl doctor\nmeshctl doctor --config /etc/meshd/meshd.yaml -o json",
	}
}

func doctor(f *flags) action {
	config := ""
	f.text("config", "while no meshd runs: what it is to be started with, a `FILE`", &config)
	return func(ctx context.Context, s *session, _ []string) error {
		d, err := s.client.Doctor(ctx)
		if err == nil && config != "" {
			s.warn([]string{fmt.Sprintf("%s was not read: this is of the meshd that runs; meshd doctor --config %s looks as "+
				"one with that file would", config, config)})
		}
		if starting(err) { // not if a meshd runs and cannot be asked: it knows what a guess does not
			d, err = withoutDaemon(ctx, config, err)
		}
		if err != nil {
			return err
		}
		if err := s.show(d, func(w io.Writer) { doctorTable(w, d) }); err != nil {
			return err
		}
		if len(d.Findings) > 0 {
			return errNo
		}
		return nil
	}
}

// withoutDaemon examines the host while no daemon runs. It starts "meshd doctor":
// the program beside this one, or that of the PATH.
func withoutDaemon(ctx context.Context, config string, unreachable error) (d control.Doctor, err error) {
	meshd, err := findMeshd()
	if err != nil {
		return d, fmt.Errorf("%w; and there is no meshd program to look without one", unreachable)
	}
	args := []string{"doctor"}
	if config != "" {
		args = append(args, "--config", config)
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, meshd, args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == exitUsage {
		return d, &usageError{strings.TrimPrefix(strings.TrimSpace(said.String()), "meshd: "), "correct the file of --config"}
	} else if ok && exit.ExitCode() == 1 {
		err = nil // it found something
	}
	if err == nil {
		err = json.Unmarshal(out, &d)
	}
	if err != nil {
		return d, fmt.Errorf("%s doctor: %w", meshd, err)
	}
	return d, nil
}

// findMeshd returns the path of the daemon's program.
func findMeshd() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "meshd")
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	return exec.LookPath("meshd")
}

func doctorTable(w io.Writer, d control.Doctor) {
	where := "this host, where no meshd answers"
	if d.Node != "" {
		where = "the host of node " + d.Node
	}
	if len(d.Findings) == 0 {
		fmt.Fprintf(w, "nothing is against meshd on %s\n", printable(where))
		return
	}
	fmt.Fprintf(w, "%s on %s:\n", many(len(d.Findings), "finding"), printable(where))
	for _, f := range d.Findings {
		fmt.Fprintf(w, "\n%s (%s): %s\n", f.Code, f.Severity, printable(f.What))
		if f.Command != "" {
			fmt.Fprintf(w, "  mend:  %s\n", printable(f.Command))
		}
		fmt.Fprintf(w, "  more:  %s\n", printable(f.Document))
	}
}
