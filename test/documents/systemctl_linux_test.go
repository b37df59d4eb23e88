package documents

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// This file is a systemctl for hosts without systemd: it runs a unit of
// /etc/systemd/system as the unit says, see directives. The log of what it runs is
// /run/log/NAME.

const (
	unitDir  = "/etc/systemd/system/"
	stateDir = "/run/stand-in/"
	logDir   = "/run/log/"
)

// service is a unit on this host.
type service struct {
	unit
	name string // without .service
}

// systemctl runs a command line and returns the exit code.
func systemctl(args []string) int {
	var err error
	switch {
	case len(args) == 2 && args[0] == "supervise":
		err = onService(args[1], (*service).supervise)
	default:
		err = systemctlVerb(args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "systemctl (stand-in):", err)
		return 1
	}
	return 0
}

func systemctlVerb(args []string) error {
	now := slices.Contains(args, "--now")
	args = slices.DeleteFunc(args, func(a string) bool { return a == "--now" })
	if len(args) != 2 {
		return fmt.Errorf("%q: it knows one verb and one unit", args)
	}
	verbs := map[string]func(*service) error{
		"start": (*service).start, "stop": (*service).stop, "reload": (*service).reload, "is-active": (*service).isActive,
		"restart": func(s *service) error { return errors.Join(s.end(true), s.start()) },
		"enable": func(s *service) error {
			if err := s.enable(); err != nil || !now {
				return err
			}
			return s.start()
		},
		"disable": func(s *service) error {
			if err := os.Remove(s.wanted()); err != nil || !now {
				return err
			}
			return s.stop()
		},
	}
	verb := verbs[args[0]]
	if verb == nil {
		return fmt.Errorf("unknown verb %q", args[0])
	}
	return onService(args[1], verb)
}

func onService(name string, do func(*service) error) error {
	name = strings.TrimSuffix(name, ".service")
	u, err := readUnit(unitDir + name + ".service")
	if err != nil {
		return err
	}
	for _, d := range []string{stateDir, logDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return do(&service{u, name})
}

func (s *service) wanted() string {
	return unitDir + s.one("Install.WantedBy") + ".wants/" + s.name + ".service"
}

func (s *service) enable() error {
	if err := os.MkdirAll(filepath.Dir(s.wanted()), 0o755); err != nil {
		return err
	}
	return os.Symlink(unitDir+s.name+".service", s.wanted())
}

// mainPID returns the process of the service; 0: it does not run.
func (s *service) mainPID() int {
	text, _ := os.ReadFile(stateDir + s.name)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

func (s *service) isActive() error {
	if s.mainPID() == 0 {
		return errors.New("inactive")
	}
	return nil
}

// start makes the directories, runs what comes first, and leaves the rest to a
// supervisor. As with Type=simple it does not wait until the service is ready.
func (s *service) start() error {
	if s.mainPID() != 0 {
		return nil
	}
	for _, dir := range s.directories() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, line := range s.unit["Service.ExecStartPre"] {
		if err := s.run(line); err != nil {
			return fmt.Errorf("ExecStartPre=%s: %w", line, err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(logDir+s.name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	ready, there, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command(self, "supervise", s.name)
	cmd.Args[0] = "systemctl"
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{there}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = there.Close()
	if err != nil {
		return err
	}
	_, _ = ready.Read(make([]byte, 1)) // until the process is there
	return nil
}

func (s *service) directories() (dirs []string) {
	for _, d := range s.words("Service.StateDirectory") {
		dirs = append(dirs, "/var/lib/"+d)
	}
	for _, d := range s.words("Service.RuntimeDirectory") {
		dirs = append(dirs, "/run/"+d)
	}
	return dirs
}

// run runs a line of the unit to its end: outside of the sandbox with "+", which is
// the only place where the shipped unit has one.
func (s *service) run(line string) error {
	line = strings.TrimPrefix(line, "+")
	line = strings.ReplaceAll(line, "$MAINPID", strconv.Itoa(s.mainPID()))
	words := strings.Fields(line)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

func (s *service) reload() error {
	if err := s.isActive(); err != nil {
		return err
	}
	return s.run(s.one("Service.ExecReload"))
}

func (s *service) stop() error { return s.end(false) }

// end stops the service and waits until it has ended.
func (s *service) end(restart bool) error {
	limit, _ := strconv.Atoi(s.one("Service.TimeoutStopSec"))
	if err := os.WriteFile(s.stopping(), nil, 0o600); err != nil {
		return err
	}
	for signal, deadline := syscall.SIGTERM, time.Now().Add(time.Duration(limit)*time.Second); s.mainPID() != 0; {
		_ = syscall.Kill(s.mainPID(), signal)
		for ; s.mainPID() != 0 && time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		}
		signal, deadline = syscall.SIGKILL, time.Now().Add(time.Second)
	}
	err := os.Remove(s.stopping())
	if restart && s.one("Service.RuntimeDirectoryPreserve") == "restart" {
		return err
	}
	for _, d := range s.words("Service.RuntimeDirectory") {
		err = errors.Join(err, os.RemoveAll("/run/"+d))
	}
	return err
}

func (s *service) stopping() string { return stateDir + s.name + ".stopping" }

// supervise starts the service's program until it is to be no more. The pipe on
// descriptor 3 is closed when it was started for the first time.
func (s *service) supervise() error {
	there := os.NewFile(3, "there")
	syscall.CloseOnExec(3)
	defer os.Remove(stateDir + s.name)
	rest, _ := strconv.Atoi(s.one("Service.RestartSec"))
	for {
		argv, env := s.confined(strings.Fields(s.one("Service.ExecStart")))
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr, cmd.Env = os.Stdout, os.Stderr, env
		if err := cmd.Start(); err != nil {
			return err
		}
		if err := os.WriteFile(stateDir+s.name, []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
			return err
		}
		_ = there.Close()
		_ = cmd.Wait()
		code := cmd.ProcessState.ExitCode() // -1: a signal
		fmt.Printf("stand-in: %s ended: %s\n", s.name, cmd.ProcessState)
		_, err := os.Stat(s.stopping())
		if err == nil || code == 0 || slices.Contains(s.words("Service.RestartPreventExitStatus"), strconv.Itoa(code)) {
			return nil
		}
		<-time.After(time.Duration(rest) * time.Second)
	}
}
