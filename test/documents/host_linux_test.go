package documents

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// needed are the programs that the documents ask for, or that make an empty host.
// A machine without one of them cannot run the documents. That is a failure only
// in CI, where all are installed on purpose.
var needed = []string{
	"bash", "make", "go", "ip", "dig", "curl", "mount", "unshare", "nsenter", "setpriv", "prlimit",
	"timeout", "hostname", "jq",
}

// demand skips the test where a program is missing, but fails in CI.
func demand(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is not installed: the documents cannot be run", program)
			}
			t.Skipf("%s is not installed", program)
		}
	}
}

// host is an empty host, on which documents are typed.
type host struct {
	t    *testing.T
	name string
	init *rig.Proc // holds its mounts and its name
	dir  string    // where the shell is
	env  []string  // its environment
}

// furnish gives a host its directories, below stage, where it puts them together.
// $1 is its name, $2 gets a word when all is done, $3 has the programs that stand in
// for what an empty host lacks, $4 is the repository, the rest are directories to
// keep although they may be in one that is hidden.
const furnish = `set -eu
hostname "$1"; exec 9>"$2"; stand_ins=$3 repository=$4; shift 4
mount -t tmpfs none ` + stage + `
cd ` + stage + `
mkdir etc root varlib run local local/bin local/sbin local/share local/go kept
mkdir -m 1777 tmp
cp -a /etc/. etc/ 2>/dev/null || true
rm -rf etc/meshd etc/netns
cp -r "$stand_ins"/. local/sbin/
mount --bind "$stand_ins"/machines local/sbin/machines
if [ -d /usr/local/go ]; then mount --bind /usr/local/go local/go; fi
n=0
for d in "$repository" "$@"; do mkdir -p "$d" kept/$n; mount --bind "$d" kept/$n; n=$((n + 1)); done
for d in etc root run tmp; do mount --bind $d /$d; done
mount --bind varlib /var/lib
mount --rbind local /usr/local
n=0
for d in "$repository" "$@"; do mkdir -p "$d"; mount --bind kept/$n "$d"; n=$((n + 1)); done
mount --make-rshared /
echo furnished >&9
exec sleep 86400
`

// stage is a directory that every machine has and none uses.
const stage = "/mnt"

// newHost makes an empty host in a namespace.
func newHost(t *testing.T, ns *rig.Namespace, name string) *host {
	t.Helper()
	done := filepath.Join(t.TempDir(), "done")
	args := []string{
		"--mount", "--uts", "--propagation", "private", "bash", "-c", furnish, "init", name, done,
		filepath.Join(rig.Dir(), "stand-ins"), working(t),
	}
	p, err := ns.Start(name+"-init", "unshare", append(args, goEnv(t, "GOCACHE", "GOMODCACHE")...)...)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, name: name, init: p, dir: working(t), env: environment(t)}
	fleet.Within(t, 20*time.Second, func(context.Context) error {
		if said, err := os.ReadFile(done); len(said) == 0 {
			return fmt.Errorf("the host %s is not furnished: %w, %s", name, err, fleet.Tail(p.Log, 5))
		}
		return nil
	})
	return h
}

func goEnv(t *testing.T, names ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// outcome is what became of what was typed.
type outcome struct {
	text   string // of both outputs
	status int
}

// paste types a text into a shell on the host, all at once.
func (h *host) paste(text string, shell ...string) outcome {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), rig.Patience(2*time.Minute))
	defer cancel()
	pid := strconv.Itoa(h.init.PID)
	args := append([]string{"--target", pid, "--mount", "--uts", "--net", "--", "sh", "-c", `cd "$0" && exec "$@"`, h.dir},
		shell...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Stdin = strings.NewReader(text)
	log, err := os.CreateTemp(h.t.TempDir(), "paste")
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log // a file: what goes on in the background must not keep the shell from ending
	cmd.Env = h.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Run()
	said, readErr := os.ReadFile(log.Name())
	if readErr != nil {
		h.t.Fatal(readErr)
	}
	o := outcome{text: string(bytes.ToValidUTF8(said, []byte("?")))}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		o.status = exit.ExitCode()
	} else if err != nil {
		h.t.Fatalf("on %s: %v, %v:\n%s\n%s", h.name, err, ctx.Err(), text, o.text)
	}
	return o
}

func working(t *testing.T) string {
	dir, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// environment is that of a root's shell, and where Go finds what it knows already.
func environment(t *testing.T) []string {
	c := goEnv(t, "GOCACHE", "GOMODCACHE", "GOFLAGS", "GOROOT")
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + filepath.Join(c[3], "bin"), "HOME=/root",
		"USER=root", "TERM=dumb", "LANG=C.UTF-8",
		"GOFLAGS=" + c[2], "GOTOOLCHAIN=local", "GOPROXY=off", "GOCACHE=" + c[0], "GOMODCACHE=" + c[1],
	}
}
