package guest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"meshd/test/vm"
)

// Port is the serial port for frames; the kernel's console is ttyS0.
const port = "/dev/ttyS1"

// Here tells whether this program is the first process of the machine, and not
// of a container, which has one too.
func Here() bool {
	_, err := os.Stat(vm.JobPath)
	return err == nil && os.Getpid() == 1 && os.Args[0] == vm.InitPath
}

// Main is process 1. It powers the machine off and does not return.
func Main() {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	out, err := furnish()
	if err == nil {
		err = carryOut(out)
	}
	var last string
	if err != nil {
		last = err.Error()
		fmt.Println("init:", last)
	}
	if out != nil {
		_ = vm.WriteFrame(out, vm.Frame{Kind: vm.Bye, Payload: []byte(last)})
		_ = unix.IoctlSetInt(int(out.Fd()), unix.TCSBRK, 1) // wait until all is sent
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // QEMU's -no-reboot makes it end; quicker than ACPI
	select {}
}

// furnish mounts what programs expect and opens the port.
func furnish() (*os.File, error) {
	mounts := []struct{ kind, on, data string }{
		{"devtmpfs", "/dev", ""},
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"tmpfs", "/dev/shm", ""},
		{"devpts", "/dev/pts", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
	}
	var errs []error
	for _, m := range mounts {
		if err := os.MkdirAll(m.on, 0o755); err != nil {
			errs = append(errs, err)
		} else if err := unix.Mount(m.kind, m.on, m.kind, 0, m.data); err != nil {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.on, err))
		}
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1",
		"/dev/stderr": "/proc/self/fd/2",
	} {
		errs = append(errs, os.Symlink(target, link))
	}
	errs = append(errs, os.Chmod("/tmp", 0o777|os.ModeSticky), os.Setenv("PATH",
		"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
	out, err := openPort()
	return out, errors.Join(append(errs, err)...)
}

// openPort opens the serial port so that bytes pass unchanged.
func openPort() (*os.File, error) {
	f, err := os.OpenFile(port, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", port, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("%s: %w", port, err)
	}
	return f, nil
}

// carryOut does the job.
func carryOut(out *os.File) error {
	debug.SetGCPercent(400)
	text, err := os.ReadFile(vm.JobPath)
	if err != nil {
		return err
	}
	j, err := vm.DecodeJob(text)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Sethostname([]byte(j.Hostname)), loadModules(j.Modules), loopback(), tune()); err != nil {
		return err
	}
	var name unix.Utsname
	_ = unix.Uname(&name)
	if err := vm.WriteFrame(out, vm.Frame{
		Kind:    vm.Hello,
		Payload: []byte(unix.ByteSliceToString(name.Release[:])),
	}); err != nil {
		return err
	}
	for _, p := range j.Programs {
		if err := run(out, p); err != nil {
			return err
		}
	}
	return nil
}

func loadModules(files []string) error {
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %s: %w", strings.TrimSuffix(filepath.Base(file), ".ko"), err)
		}
		_ = os.Remove(file) // its memory is worth more
	}
	return nil
}

// loopback takes lo up, as every machine does.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("take lo up: %w", err)
	}
	return nil
}

// tune sets what newer kernels start with and Debian 12's does not: programs may
// ask for socket buffers of 4 MiB.
func tune() error {
	var errs []error
	for _, key := range []string{"rmem_max", "wmem_max"} {
		errs = append(errs, os.WriteFile("/proc/sys/net/core/"+key, []byte("4194304"), 0))
	}
	return errors.Join(errs...)
}
