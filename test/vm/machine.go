package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Machine is the hardware. The zero value is usable.
//
// With Count there is one processor, and an instruction takes a nanosecond, no
// matter how long it really took: programs see a machine of a steady speed, also
// while this one is busy with other things, and no limit in them is missed. It
// takes a processor of this machine two to four times as long to do the work,
// but nothing is waited for: when the processor idles, its clock jumps ahead.
// Without Count, its clock is the real one, and it has CPUs processors that are
// as slow as emulation and company make them.
type Machine struct {
	QEMU      string        // default qemu-system-x86_64
	MemoryMiB int           // default 1024
	CPUs      int           // default 2; 1 with Count
	Count     bool          // tie the clock to the instructions executed, and skip what is only waited for; see below
	Arguments string        // more of the kernel's command line
	Console   io.Writer     // also gets the kernel's messages, live; default nowhere
	Boot      time.Duration // longest time until the first program starts; default 2 minutes
	Slack     time.Duration // how much longer than a program's own limit it may take to end it and tell; default 1 minute
}

// Watcher receives what happens in the machine, from one goroutine. The index is
// that of the program in the job.
type Watcher interface {
	Booted(release string, after time.Duration)
	Output(index int, text []byte)
	File(index int, path string, contents []byte)
	Ended(index int, r Result)
}

// Failure tells that the machine itself failed or hung: not what was run in it.
type Failure struct {
	Hung    bool   // it did not answer in time; else it ended by itself
	Why     string // in a line
	Console string // the last of the kernel's messages
}

func (f *Failure) Error() string { return "the machine failed: " + f.Why }

func (m Machine) withDefaults() Machine {
	if m.QEMU == "" {
		m.QEMU = "qemu-system-x86_64"
	}
	if m.MemoryMiB == 0 {
		m.MemoryMiB = 1024
	}
	if m.CPUs == 0 {
		m.CPUs = 2
	}
	if m.Count {
		m.CPUs = 1
	}
	if m.Boot == 0 {
		m.Boot = 2 * time.Minute
	}
	if m.Slack == 0 {
		m.Slack = time.Minute
	}
	if m.Console == nil {
		m.Console = io.Discard
	}
	return m
}

// arguments is QEMU's command line. Its three channels are sockets in dir.
func (m Machine) arguments(k Kernel, initrd, dir string) []string {
	accel := "tcg,thread=multi,tb-size=256"
	if m.Count {
		accel = "tcg,thread=single"
	}
	channel := func(name string) string {
		return fmt.Sprintf("socket,id=%s,path=%s", name, filepath.Join(dir, name))
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", accel, "-cpu", "max,la57=off", "-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.MemoryMiB),
		"-kernel", k.Image, "-initrd", initrd,
		"-append", strings.TrimSpace(kernelArguments + " " + m.Arguments),
		"-chardev", channel("console"), "-serial", "chardev:console",
		"-chardev", channel("frames"), "-serial", "chardev:frames",
		"-chardev", channel("monitor"), "-mon", "chardev=monitor,mode=control",
	}
	if m.Count {
		args = append(args, "-icount", "shift=0,sleep=off")
	}
	return args
}

// A panic ends QEMU (with -no-reboot) and an oops is one; SysRq is for hangs.
// All processors read the same counter here, so it is a reliable clock, and
// one that costs no exit to the emulated hardware.
const kernelArguments = "console=ttyS0 quiet panic=-1 oops=panic sysrq_always_enabled " +
	"mitigations=off tsc=reliable random.trust_cpu=on nowatchdog rcupdate.rcu_cpu_stall_suppress=1 " +
	"audit=0 apparmor=0 selinux=0 rdinit=" + InitPath

// Run boots the image, runs the job, and returns when the machine is off. The
// error is a [*Failure] if the machine did not do its job; how the programs
// ended is for the watcher. Ending ctx ends the machine.
func (m Machine) Run(ctx context.Context, im *Image, j Job, w Watcher) error {
	m = m.withDefaults()
	dir, err := os.MkdirTemp("", "meshd-vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := writeImage(initrd, im, j); err != nil {
		return err
	}
	b, err := m.start(ctx, im.kernel, initrd, dir)
	if err != nil {
		return err
	}
	defer b.end()
	return b.follow(ctx, j, w)
}

func writeImage(file string, im *Image, j Job) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	buf := bufio.NewWriterSize(f, 1<<20)
	return errors.Join(im.Write(buf, j), buf.Flush(), f.Close())
}

// boot is one machine that was started.
type boot struct {
	m       Machine
	begin   time.Time
	cmd     *exec.Cmd
	ended   chan struct{} // closed when QEMU is gone
	console *console
	frames  net.Conn
	monitor net.Conn
	says    *tail // what QEMU itself complains of
}

// start starts QEMU and waits until it has opened its channels.
func (m Machine) start(ctx context.Context, k Kernel, initrd, dir string) (*boot, error) {
	var doors []net.Listener
	for _, name := range []string{"console", "frames", "monitor"} {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		defer l.Close()
		doors = append(doors, l)
	}
	b := &boot{m: m, begin: time.Now(), ended: make(chan struct{}), says: &tail{max: 16 << 10}}
	b.cmd = exec.CommandContext(ctx, m.QEMU, m.arguments(k, initrd, dir)...)
	b.cmd.Stdout, b.cmd.Stderr = b.says, b.says
	endWithUs(b.cmd)
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start QEMU (Debian: apt-get install qemu-system-x86): %w", err)
	}
	go func() { _ = b.cmd.Wait(); close(b.ended) }()
	var conns []net.Conn
	for _, l := range doors {
		c, err := b.accept(l)
		if err != nil {
			b.end()
			return nil, err
		}
		conns = append(conns, c)
	}
	b.console = watchConsole(conns[0], m.Console)
	b.frames, b.monitor = conns[1], conns[2]
	return b, nil
}

// accept waits for QEMU to open one channel, or to end instead.
func (b *boot) accept(l net.Listener) (net.Conn, error) {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-b.ended:
			_ = l.Close()
		case <-stop:
		}
	}()
	c, err := l.Accept()
	if err != nil {
		return nil, fmt.Errorf("QEMU ended at once: %s", strings.TrimSpace(b.says.String()))
	}
	return c, nil
}

// end ends QEMU if it still runs.
func (b *boot) end() {
	_ = b.cmd.Process.Kill()
	<-b.ended
	for _, c := range []net.Conn{b.frames, b.monitor} {
		if c != nil {
			_ = c.Close()
		}
	}
	if b.console != nil {
		b.console.close()
	}
}

// follow reads frames until the last, and translates an end that comes before.
func (b *boot) follow(ctx context.Context, j Job, w Watcher) error {
	at := -1
	r := bufio.NewReader(b.frames)
	b.limit(b.m.Boot)
	for {
		f, err := ReadFrame(r)
		if err != nil {
			return b.failure(ctx, err, at)
		}
		switch f.Kind {
		case Hello:
			w.Booted(string(f.Payload), time.Since(b.begin))
		case Start:
			if at++; at >= len(j.Programs) {
				return b.failure(ctx, errors.New("it started more programs than it was told to"), at)
			}
			b.limit(j.Programs[at].Timeout + b.m.Slack)
		case Bye:
			if len(f.Payload) > 0 || at != len(j.Programs)-1 {
				return b.failure(ctx, fmt.Errorf("init: %s", f.Payload), at)
			}
			return nil
		default:
			if at < 0 {
				return b.failure(ctx, fmt.Errorf("frame %c before a program started", f.Kind), at)
			}
			if err := b.tell(w, at, f); err != nil {
				return b.failure(ctx, err, at)
			}
		}
	}
}

// limit bounds what the machine does next. Where its clock counts instructions
// it may be behind the real one.
func (b *boot) limit(d time.Duration) {
	if b.m.Count {
		d *= 10
	}
	_ = b.frames.SetReadDeadline(time.Now().Add(d))
}

// tell passes on a frame of program at.
func (b *boot) tell(w Watcher, at int, f Frame) error {
	switch f.Kind {
	case Output:
		w.Output(at, f.Payload)
	case File:
		path, contents, ok := strings.Cut(string(f.Payload), "\x00")
		if !ok {
			return errors.New("a file without a name came from the machine")
		}
		w.File(at, path, []byte(contents))
	case Exit:
		var res Result
		if err := json.Unmarshal(f.Payload, &res); err != nil {
			return fmt.Errorf("read how the program ended: %w", err)
		}
		if res.Overdue {
			b.listen()
			res.Console = b.console.tail.String()
		}
		w.Ended(at, res)
	}
	return nil
}
