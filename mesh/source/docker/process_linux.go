package docker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// process is a Process of this host.
type process struct {
	file *os.File      // a process descriptor
	died chan struct{} // closed when the process has ended
	done sync.WaitGroup
	sure bool
}

// The difference that is allowed between when the kernel and when the engine says that
// a process was started. An engine notes it when the process runs, which takes time; the
// kernel counts in ticks from the start of the host.
const (
	startedBefore = time.Minute
	startedAfter  = 2 * time.Second
)

// OpenProcess watches a process of this host by its number. The error is
// os.ErrProcessDone if there is none.
func OpenProcess(pid int, started time.Time) (Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, os.ErrProcessDone
	case err != nil:
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	p := &process{file: os.NewFile(uintptr(fd), "pidfd"), died: make(chan struct{})}
	began, err := processStart(pid)
	if err == nil {
		d := began.Sub(started)
		p.sure = d < startedAfter && d > -startedBefore
	}
	raw, err := p.file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	p.done.Go(func() { p.wait(raw.Read) })
	return p, nil
}

// wait closes died when the process has ended, unless Close comes first.
func (p *process) wait(read func(f func(fd uintptr) bool) error) {
	ended := false
	_ = read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		ended = err == nil && n > 0
		return ended
	}) // an error says that Close came first
	if ended {
		close(p.died)
	}
}

func (p *process) Died() <-chan struct{} { return p.died }
func (p *process) Sure() bool            { return p.sure }

func (p *process) Close() error {
	err := p.file.Close()
	p.done.Wait()
	return err
}

// ticks is how many the kernel counts in a second for processes, on every architecture
// of Linux (USER_HZ).
const ticks = 100

// processStart returns when a process was started, by the host's clock.
func processStart(pid int) (time.Time, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, err
	}
	// Field 22. Field 2, the name in parentheses, may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return time.Time{}, fmt.Errorf("/proc/%d/stat: %d fields after the name", pid, len(fields))
	}
	n, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, err
	}
	return time.Now().Add(time.Duration(n)*time.Second/ticks - time.Duration(up.Nano())), nil
}
