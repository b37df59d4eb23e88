package dataplane

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func (w *fakeWorld) calm(*testing.T, place) func() error { return func() error { return nil } }

// synTimeout is after what time Linux asks for a connection again (RFC 6298, 2.1).
const synTimeout = time.Second

// calm implements world. Where the kernel's log cannot be read, it is not looked
// at. What is sent again within less than synTimeout is of other connections, which
// the namespace's count contains: those that an earlier behaviour left to close.
func (k *kernel) calm(t *testing.T, from place) (check func() error) {
	t.Helper()
	before, began := k.resent(t, from), time.Now()
	log := openKernelLog(t)
	return func() error {
		var err error
		if n := k.resent(t, from) - before; n > 0 && time.Since(began) >= synTimeout {
			err = fmt.Errorf("%d TCP segments were sent twice", n)
		}
		if lines := log.complaints(); len(lines) > 0 {
			err = errors.Join(err, fmt.Errorf("the kernel's log has %d lines like %q", len(lines), lines[0]))
		}
		return err
	}
}

// resent returns how many TCP segments were sent again from a place so far.
func (k *kernel) resent(t *testing.T, from place) int {
	t.Helper()
	var text []byte
	must(t, k.at(from).Do(func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/snmp"); return err }))
	var names []string
	for line := range strings.Lines(string(text)) {
		switch f := strings.Fields(line); {
		case len(f) == 0 || f[0] != "Tcp:":
		case names == nil:
			names = f
		default:
			for i, name := range names {
				if name == "RetransSegs" && i < len(f) {
					n, err := strconv.Atoi(f[i])
					must(t, err)
					return n
				}
			}
		}
	}
	t.Fatal("/proc/net/snmp tells no RetransSegs")
	return 0
}

// kernelLog is the kernel's log from a moment on; -1 if it cannot be read.
type kernelLog int

func openKernelLog(t *testing.T) kernelLog {
	t.Helper()
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		return -1
	}
	return kernelLog(fd)
}

// complaints reads what IPVS has said of packets that it could not serve.
func (l kernelLog) complaints() (lines []string) {
	for buf := make([]byte, 8192); l >= 0; {
		n, err := unix.Read(int(l), buf)
		if errors.Is(err, unix.EPIPE) {
			continue // lines were overwritten before they were read
		}
		if err != nil || n == 0 {
			break
		}
		if line := string(buf[:n]); strings.Contains(line, "IPVS:") && strings.Contains(line, "no destination") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
