package ipvs

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	mobyipvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/lb/internal/namespace"
	"meshd/lb/ipvs/genl"
)

// kernel is the seam to the IPVS of one network namespace. Errors of requests
// are errnos: EEXIST for a duplicate, ESRCH for a missing service, ENOENT for a
// missing destination or scheduler.
type kernel interface {
	// Do carries out at most maxBatch requests, in order; as genl.Conn.Do.
	Do([]genl.Request) []error
	Info() (genl.Info, error)
	Service(genl.ID) (genl.Service, error)
	Services() ([]genl.Service, error)
	// Table reads /proc/net/ip_vs; as parseTable. Without IPVS it is empty.
	Table(each func(procService, []procBackend) error) error
	// Destinations appends the destinations of one service to a list.
	Destinations(genl.ID, []genl.DestinationState) ([]genl.DestinationState, error)
	Close() error
}

// pools is the seam to pool.Marked.
type pools interface {
	Setup() error
	Discover() error
	Remnants() ([]lb.Remnant, error)
	Check() ([]lb.Finding, error)
	Number() (uint64, error)
	Teardown() error
	SetPool(lb.Pool) error
	DelPool(netip.Prefix) error
	Pools() map[netip.Prefix]lb.Pool
	Marks() map[lb.Key]uint32
	SetMarks(map[lb.Key]uint32) error
	DelMark(lb.Key) error
	MoveMark(from, to lb.Key) error
	Served() []lb.Key
	Serve(more, less []lb.Key) error
	Cut([]conntrack.Connections, func(lb.Key, netip.AddrPort) bool) error
	RemoveMarking() error
	RemoveMarks() error
	RefuseAll() error
	Close() error
}

// errStuck says that the kernel did not answer in time.
var errStuck = fmt.Errorf("%w: IPVS did not answer in time", lb.ErrDrift)

// limited puts a time limit on every call of a kernel: a system call may wait
// for a lock of the kernel that nothing ends. A call that is stuck keeps its
// goroutine; the kernel is not used again.
type limited struct {
	kernel kernel
	limit  time.Duration
	stuck  bool // not to be used again
	busy   bool // a call has not returned
}

// call runs f, one at a time.
func (l *limited) call(f func(kernel) error) error {
	if l.stuck {
		return errStuck
	}
	done := make(chan error, 1)
	go func() { done <- f(l.kernel) }()
	timer := time.NewTimer(l.limit)
	defer timer.Stop()
	select {
	case err := <-done:
		l.stuck = errors.Is(err, genl.ErrLost) || errors.Is(err, genl.ErrMalformed)
		return err
	case <-timer.C:
		l.stuck, l.busy = true, true
		return errStuck
	}
}

// realKernel is the kernel that this process runs on.
type realKernel struct {
	*genl.Conn

	inside func(func() error) error
	buf    []byte
}

// openKernel opens IPVS in the namespace of that path.
func openKernel(path string, limit time.Duration) (*realKernel, error) {
	inside := func(f func() error) error { return namespace.Inside(path, f) }
	conn, err := genl.Dial(inside, limit)
	if err != nil {
		return nil, explain("open IPVS", err)
	}
	return &realKernel{Conn: conn, inside: inside, buf: make([]byte, tableBuffer)}, nil
}

// logTimeouts says when this kernel forgets idle connections. moby/ipvs asks
// for that right, but looks its netlink family up once per process and takes
// failure for success: a timeout of 0 is not believed.
func logTimeouts(path string, log *slog.Logger) {
	h, err := mobyipvs.New(path)
	if err != nil {
		return
	}
	defer h.Close()
	if t, err := h.GetConfig(); err == nil && t.TimeoutTCP > 0 {
		log.Info("IPVS forgets connections that are idle", slog.Duration("tcp", t.TimeoutTCP),
			slog.Duration("udp", t.TimeoutUDP))
	}
}

func (k *realKernel) Table(each func(procService, []procBackend) error) error {
	return readTable(k.inside, k.buf, each)
}

// readTable opens /proc/net/ip_vs inside the namespace; once open, it belongs
// to it on every thread.
func readTable(inside func(func() error) error, buf []byte, each func(procService, []procBackend) error) error {
	var f *os.File
	err := inside(func() (err error) {
		f, err = os.Open("/proc/thread-self/net/ip_vs")
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read IPVS' table: %w", err)
	}
	defer f.Close()
	return parseTable(f, buf, each)
}

// tablePresent reports whether IPVS is loaded in the namespace of that path,
// without loading it.
func tablePresent(path string) (present bool, err error) {
	err = namespace.Inside(path, func() error {
		_, err := os.Stat("/proc/thread-self/net/ip_vs")
		present = err == nil
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return present, err
}

// probeIPVS asks the kernel of the namespace for its IPVS, which makes it load
// the module if it can.
func probeIPVS(path string, limit time.Duration) error {
	conn, err := genl.Dial(func(f func() error) error { return namespace.Inside(path, f) }, limit)
	if err != nil {
		return explain("look for IPVS", err)
	}
	return conn.Close()
}

// inUserNamespace reports whether this process is in a user namespace that is
// not the host's: root there is nobody to the rest of the kernel.
func inUserNamespace() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(string(text)), []string{"0", "0", "4294967295"})
}

// explain turns the kernel's errno into what an operator can act on.
func explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, genl.ErrNoIPVS):
		return fmt.Errorf("%w: %w; load the module ip_vs, or use a kernel with CONFIG_IP_VS", lb.ErrUnsupported, err)
	case errors.Is(err, os.ErrPermission) && inUserNamespace():
		return fmt.Errorf("%w: %s: %w; this kernel's IPVS takes no orders from a container that has a user namespace of "+
			"its own: use lb: nft there", lb.ErrUnsupported, what, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: no CAP_NET_ADMIN (%s: %w); run as root or grant the capability", lb.ErrUnsupported, what, err)
	// the module was unloaded, perhaps loaded again
	case errors.Is(err, unix.ENOENT), errors.Is(err, genl.ErrLost), errors.Is(err, genl.ErrMalformed):
		return fmt.Errorf("%w: %s: %w", lb.ErrDrift, what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
