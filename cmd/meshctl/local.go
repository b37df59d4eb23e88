package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
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
			path: "keygen", short: "print a new gossip key of 32 bytes in base64",
			long:    "It needs no meshd. Keep the key in a file that only root can read.",
			example: "umask 077; meshctl keygen > /etc/meshd/gossip.key", setup: func(*flags) action { return keygen },
		},
		{
			path: "version", short: "print the version of meshctl, and of meshd if it answers",
			long: "It needs no meshd: the exit code is 0 without one, too.", example: "meshctl version",
			setup: func(*flags) action { return printVersion },
		},
		{
			path: "completion", args: "SHELL", min: 1, max: 1, complete: "shell", setup: func(*flags) action { return completion },
			short:   "print a completion script for bash, zsh or fish",
			example: "source <(meshctl completion bash)\nmeshctl completion zsh > \"${fpath[1]}/_meshctl\"\nmeshctl completion fish > ~/.config/fish/completions/meshctl.fish",
		},
	}
}

func keygen(_ context.Context, s *session, _ []string) error {
	key := make([]byte, control.KeySize)
	_, _ = rand.Read(key) // never fails
	text := base64.StdEncoding.EncodeToString(key)
	return s.show(map[string]string{"key": text, "id": control.KeyID(key)}, func(w io.Writer) { fmt.Fprintln(w, text) })
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
	v := control.Version{Version: version, Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH, API: control.APIVersion}
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
