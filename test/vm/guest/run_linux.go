package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"meshd/test/vm"
)

// grace is what a program that took too long has to say what it was doing.
const grace = 10 * time.Second

// run runs one program and reports how it went. The error is one of the port.
func run(out *os.File, r vm.Run) error {
	if err := vm.WriteFrame(out, vm.Frame{Kind: vm.Start}); err != nil {
		return err
	}
	begin := time.Now()
	res, err := execute(out, r)
	res.Duration = time.Since(begin)
	if err != nil {
		return err
	}
	for _, file := range r.Collect {
		contents, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := vm.WriteFrame(out, vm.Frame{Kind: vm.File, Payload: append([]byte(file+"\x00"), contents...)}); err != nil {
			return err
		}
	}
	text, err := json.Marshal(res)
	if err != nil {
		return err
	}
	return vm.WriteFrame(out, vm.Frame{Kind: vm.Exit, Payload: text})
}

// execute starts the program and waits until it and all that it left behind
// are gone, and all that they printed is sent.
func execute(out io.Writer, r vm.Run) (vm.Result, error) {
	pid, output, err := start(r)
	if err != nil {
		return vm.Result{Code: vm.CodeNoStart, Error: err.Error()}, nil
	}
	sent := make(chan error, 1)
	go func() { sent <- forward(out, output) }()
	ended := make(chan vm.Result, 1)
	go func() { ended <- reap(pid) }()

	var res vm.Result
	limit := time.NewTimer(r.Timeout)
	defer limit.Stop()
	select {
	case res = <-ended:
	case <-limit.C:
		res = overdue(pid, r, ended)
	}
	killRest()
	return res, <-sent
}

// overdue ends a program that took too long, with what there is to know about
// it: the kernel's list of tasks on the console, and from a Go program its
// goroutines.
func overdue(pid int, r vm.Run, ended <-chan vm.Result) vm.Result {
	// Everything to the console, then blocked tasks, all tasks, memory, and
	// silence again.
	for _, what := range []string{"8", "w", "t", "m", "4"} {
		_ = os.WriteFile("/proc/sysrq-trigger", []byte(what), 0)
	}
	_ = unix.Kill(-pid, unix.SIGQUIT)
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case <-ended:
	case <-patience.C:
		_ = unix.Kill(-pid, unix.SIGKILL)
		<-ended
	}
	return vm.Result{Code: vm.CodeTimeout, Overdue: true, Error: fmt.Sprintf("it took longer than %v", r.Timeout)}
}

// start starts the program in a process group of its own, with its output in
// one pipe.
func start(r vm.Run) (int, *os.File, error) {
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return 0, nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	output, in, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer in.Close()
	pid, err := syscall.ForkExec(r.Path, append([]string{r.Path}, r.Args...), &syscall.ProcAttr{
		Dir: r.Dir, Env: r.Env, Files: []uintptr{null.Fd(), in.Fd(), in.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		_ = output.Close()
		return 0, nil, fmt.Errorf("start %s: %w", r.Path, err)
	}
	return pid, output, nil
}

// forward sends what comes out of the pipe until it is closed by all.
func forward(out io.Writer, from *os.File) error {
	defer from.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if err := vm.WriteFrame(out, vm.Frame{Kind: vm.Output, Payload: buf[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// reap waits for children, those that were left to process 1 too, until pid is
// among them.
func reap(pid int) vm.Result {
	for {
		var s unix.WaitStatus
		got, err := unix.Wait4(-1, &s, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return vm.Result{Code: vm.CodeMachine, Error: "wait: " + err.Error()}
		case got != pid:
		case s.Signaled():
			return vm.Result{Code: 128 + int(s.Signal()), Error: "killed by " + s.Signal().String()}
		case s.Exited():
			return vm.Result{Code: s.ExitStatus()}
		}
	}
}

// killRest kills every process but this one and waits for them.
func killRest() {
	for {
		if err := unix.Kill(-1, unix.SIGKILL); err != nil { // ESRCH: none is left
			return
		}
		_, err := unix.Wait4(-1, nil, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
