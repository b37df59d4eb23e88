//go:build linux

package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Proc is a process in a namespace.
type Proc struct {
	Name string
	PID  int    // in the process namespace of the rig
	Log  string // the file that holds its standard output and error

	ns   *Namespace
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; err is then set
	err  error
}

// Start runs a program in the namespace. Its output is appended to a log in
// the rig's directory, named after the namespace and the process.
func (n *Namespace) Start(name, program string, args ...string) (*Proc, error) {
	return n.start(name, n.command(program, args...))
}

// StartPowerless is Start for a process that has no capability over the
// namespace, although it is root to itself: it may not touch the network's
// configuration, nor bind to low ports unless
// net.ipv4.ip_unprivileged_port_start allows it.
func (n *Namespace) StartPowerless(name, program string, args ...string) (*Proc, error) {
	cmd := n.command(program, args...)
	same := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = same, same
	return n.start(name, cmd)
}

func (n *Namespace) start(name string, cmd *exec.Cmd) (*Proc, error) {
	p := &Proc{Name: name, Log: n.logPath(name), ns: n, cmd: cmd, done: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := n.Do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", name, n.Name, err)
	}
	p.PID = p.cmd.Process.Pid
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	n.rig.mu.Lock()
	n.rig.procs = append(n.rig.procs, p)
	n.rig.mu.Unlock()
	return p, nil
}

// Output runs a program in the namespace until it ends and returns what it
// wrote to its standard output. The error of a program that failed is an
// [*exec.ExitError] with its standard error.
func (n *Namespace) Output(program string, args ...string) ([]byte, error) {
	cmd := n.command(program, args...)
	var out []byte
	err := n.Do(func() (err error) {
		out, err = cmd.Output()
		return err
	})
	return out, err
}

// command leaves out of the environment what makes a program believe that it
// is the rig itself, and puts the process into a group of its own, so that a
// Ctrl-C is for the rig only.
func (n *Namespace) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), insideEnv+"=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Err says how the process ended; it waits for that.
func (p *Proc) Err() error {
	<-p.done
	return p.err
}

// Signal sends a signal, unless the process has ended.
func (p *Proc) Signal(s syscall.Signal) error {
	err := p.cmd.Process.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Pause stops the process where it is (SIGSTOP), and returns when all its threads
// stand still; Resume lets it go on.
func (p *Proc) Pause() error {
	if err := p.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	for {
		// Without WNOWAIT the end of the process would be taken from who waits for it.
		err := unix.Waitid(unix.P_PID, p.PID, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Resume undoes [Proc.Pause].
func (p *Proc) Resume() error { return p.Signal(unix.SIGCONT) }

// Kill ends the process at once (SIGKILL) and waits until it is gone.
func (p *Proc) Kill() {
	_ = p.Signal(unix.SIGKILL)
	<-p.done
}

// Stop asks the process to end (SIGTERM), waits for it, and kills it if it has
// not ended after patience.
func (p *Proc) Stop(patience time.Duration) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		p.Kill()
		return fmt.Errorf("%s in %s did not end within %v", p.Name, p.ns.Name, patience)
	}
}
