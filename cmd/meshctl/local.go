package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"meshd/mesh/control"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = ""

func localCommands() []command {
	return []command{
		{
			path: "keygen", short: "make a new gossip key of 32 bytes in base64",
			long: "It needs no meshd. With --out the key goes into a new file of mode 0600, as meshd\ndemands it; " +
				"without, to the standard output. Who has the key is in the mesh.",
			example: "meshctl keygen --out /etc/meshd/key", setup: keygen,
		},
		{
			path: "version", short: "print the version of meshctl, and of meshd if it answers",
			long: "It needs no meshd: the exit code is 0 without one, too.", example: "meshctl version",
			setup: func(*flags) action { return printVersion },
		},
		{
			path: "completion", args: "SHELL", min: 1, max: 1, complete: "shell",
			setup: func(*flags) action { return completion },
			short: "print a completion script for bash, zsh or fish",
			example: "source <(meshctl completion bash)\nmeshctl completion zsh > \"${fpath[1]}/_meshctl\"\nmeshctl " +
				"completion fish > ~/.config/fish/completions/meshctl.fish",
		},
	}
}

func keygen(f *flags) action {
	out := ""
	f.value("out", "write the key into a new `FILE`, mode 0600", func(path string) error {
		if path == "" {
			return &usageError{"the path is empty", "write one such as /etc/meshd/key"}
		}
		if path == "-" {
			return &usageError{`"-" would be a file of that name`, "leave the flag out for the standard output"}
		}
		out = path
		return nil
	})
	return func(_ context.Context, s *session, _ []string) error {
		key := make([]byte, control.KeySize)
		_, _ = rand.Read(key) // never fails
		text, id := base64.StdEncoding.EncodeToString(key), control.KeyID(key)
		if out == "" {
			return s.show(map[string]string{"key": text, "id": id}, func(w io.Writer) { fmt.Fprintln(w, text) })
		}
		if err := writeKey(out, text+"\n"); err != nil {
			return err
		}
		return s.show(map[string]string{"file": out, "id": id},
			func(w io.Writer) { fmt.Fprintf(w, "key %s is in %s\n", id, printable(out)) })
	}
}

// writeKey creates the file. It overwrites none, because the key in it may be the
// only one that opens a mesh.
func writeKey(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists and was left as it is; move it away or choose another --out", path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: its directory does not exist; make it with: install -d -m 700 %s", path, filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("%s: the key was not written: %w", path, err), os.Remove(path))
	}
	return nil
}

// versions is what "version" prints.
type versions struct {
	Client control.Version  `json:"client"`
	Server *control.Version `json:"server"` // null: no answer
	Error  string           `json:"error,omitempty"`
}

func printVersion(ctx context.Context, s *session, _ []string) error {
	v := versions{Client: clientVersion()}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if server, err := s.client.Version(ctx); err != nil {
		v.Error = err.Error()
	} else {
		v.Server = &server
	}
	return s.show(v, func(w io.Writer) {
		fmt.Fprintf(w, "meshctl %s\n", versionLine(v.Client))
		if v.Server == nil {
			fmt.Fprintf(w, "meshd   does not answer on %s\n", s.socket)
			return
		}
		fmt.Fprintf(w, "meshd   %s\n", versionLine(*v.Server))
	})
}

func versionLine(v control.Version) string {
	commit := ""
	if v.Commit != "" {
		commit = " (" + v.Commit[:min(len(v.Commit), 12)] + ")"
	}
	return printable(fmt.Sprintf("%s%s %s %s API v%d", v.Version, commit, v.Go, v.OS, v.API))
}

func clientVersion() control.Version {
	v := control.Version{
		Version: version, Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH,
		API: control.APIVersion,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Version = cmp.Or(v.Version, info.Main.Version)
		for _, set := range info.Settings {
			if set.Key == "vcs.revision" {
				v.Commit = set.Value
			}
		}
	}
	v.Version = cmp.Or(v.Version, "(devel)")
	return v
}
