//go:build linux

package main

// This file owns the processes of all servers: configuration, start, processor, end.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	serverCPU = 0
	clientCPU = 1
)

// server is a running DNS server, a process of its own on serverCPU.
type server struct {
	name string
	addr netip.AddrPort
	cmd  *exec.Cmd
	in   io.WriteCloser // of ours: commands
	out  *bufio.Scanner
}

// start starts the servers that are installed.
func (b *bench) start(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "hosts"), b.world.hosts(), 0o644); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for i, name := range []string{"echo", "meshd", "miekg", "unbound", "dnsmasq", "coredns"} {
		if !b.wants(b.only, name) {
			continue
		}
		s := &server{name: name, addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(5300+10*i))}
		args, err := b.command(s, dir, self)
		if err != nil {
			fmt.Fprintf(os.Stderr, "dns: without %s: %v\n", name, err)
			continue
		}
		if err := s.run(b.ctx, args); err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
		b.servers = append(b.servers, s)
		if err := b.ready(s); err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
	}
	return nil
}

// command is the command line of a server, its configuration written to dir.
func (b *bench) command(s *server, dir, self string) ([]string, error) {
	file := filepath.Join(dir, s.name+".conf")
	port := strconv.Itoa(int(s.addr.Port()))
	hosts := filepath.Join(dir, "hosts")
	switch s.name {
	case "unbound":
		return []string{"unbound", "-d", "-c", file}, installed("unbound", file, b.unboundConf(port))
	case "dnsmasq":
		text := "port=" + port + "\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\naddn-hosts=" + hosts +
			"\nlocal=/" + strings.TrimSuffix(domain, ".") + "/\nlocal-ttl=5\npid-file=\nuser=\n"
		return []string{"dnsmasq", "--keep-in-foreground", "-C", file}, installed("dnsmasq", file, text)
	case "coredns":
		text := ".:" + port + " {\n bind 127.0.0.1\n hosts " + hosts + " {\n ttl 5\n reload 0\n }\n}\n"
		return []string{b.options.coredns, "-conf", file, "-quiet"}, installed(b.options.coredns, file, text)
	}
	return []string{self, "serve", s.name, s.addr.String(), strconv.Itoa(b.names)}, nil
}

func installed(program, conf, text string) error {
	if _, err := exec.LookPath(program); err != nil {
		return err
	}
	return os.WriteFile(conf, []byte(text), 0o644)
}

func (b *bench) unboundConf(port string) string {
	var t strings.Builder
	t.WriteString("server:\n interface: 127.0.0.1\n port: " + port +
		"\n num-threads: 1\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n" +
		" pidfile: \"\"\n use-syslog: no\n module-config: \"iterator\"\n rrset-roundrobin: yes\n access-control: " +
		"127.0.0.0/8 allow\n" +
		" local-zone: \"" + domain + "\" static\n local-data: \"" + domain + " 5 IN SOA ns." + domain + " hostmaster." +
		domain + " 1 3600 600 86400 2\"\n")
	b.world.each(func(name string, addrs ...netip.Addr) {
		for _, a := range addrs {
			fmt.Fprintf(&t, " local-data: \"%s 5 IN A %s\"\n", name, a)
		}
	})
	return t.String()
}

// run starts the process on its processor, on which its threads stay.
func (s *server) run(ctx context.Context, args []string) error {
	s.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	s.cmd.Stderr = os.Stderr
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	s.out = bufio.NewScanner(out)
	return pinned(serverCPU, s.cmd.Start)
}

// pinned calls f on a thread of a processor. What f starts stays there.
func pinned(cpu int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its affinity
		if err := pin(0, cpu); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// onProcessor runs a command on a processor and returns what it prints.
func onProcessor(cmd *exec.Cmd, cpu int) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := pinned(cpu, cmd.Start); err != nil {
		return nil, err
	}
	err := cmd.Wait()
	return out.Bytes(), err
}

// ours reports whether the server obeys commands.
func (s *server) ours() bool { return s.name == "echo" || s.name == "meshd" || s.name == "miekg" }

// ready waits until the server answers.
func (b *bench) ready(s *server) error {
	if s.ours() && (!s.out.Scan() || s.out.Text() != "ready") {
		return errors.New("it does not get ready")
	}
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) && b.ctx.Err() == nil {
		ps, err := packets(b.world.one[:1], false)
		if err != nil {
			return err
		}
		c, err := newClient(s.addr, ps, expect{answers: 1, echo: s.name == "echo"}, 1)
		if err != nil {
			return err
		}
		c.flood(time.Millisecond)
		c.close()
		if c.answered > 0 && c.wrong == 0 {
			return nil
		}
		pause(b.ctx, 50*time.Millisecond)
	}
	return errors.New("no answer for a minute")
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// command sends a line to a server of ours and returns its tally.
func (s *server) command(line string) (t tally, err error) {
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		return t, err
	}
	if !s.out.Scan() {
		return t, fmt.Errorf("%s has ended", s.name)
	}
	_, err = fmt.Sscan(s.out.Text(), &t.mallocs, &t.changes, &t.heap)
	return t, err
}

// stop ends the servers.
func (b *bench) stop() {
	for _, s := range b.servers {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// cpu is the processor time of all threads of the server so far.
func (s *server) cpu() (sum time.Duration) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.cmd.Process.Pid))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		var ns int64
		_, _ = fmt.Sscan(string(text), &ns)
		sum += time.Duration(ns)
	}
	return sum
}

// pin keeps a thread on a processor; 0: the calling thread.
func pin(tid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("pin to processor %d: %w", cpu, err)
	}
	return nil
}

// setRealtime gives the threads of a process real-time priority, or takes it from
// them. The second thread of a Go program is the system monitor, which makes sure
// that all goroutines get their turn: it goes before the others.
func setRealtime(pid int, on bool) error {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // sorted
	if err != nil {
		return err
	}
	for i, f := range files {
		tid, err := strconv.Atoi(f.Name())
		if err != nil {
			continue
		}
		p := 1
		if i == 1 {
			p = 2
		}
		if err := priority(tid, p, on); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// priority does it for one thread; 0: the calling one.
func priority(tid, p int, on bool) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr}
	if on {
		attr.Policy, attr.Priority = unix.SCHED_FIFO, uint32(p)
	}
	if err := unix.SchedSetAttr(tid, &attr, 0); err != nil {
		return fmt.Errorf("set priority: %w", err)
	}
	return nil
}
