package ipvs

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	mobyipvs "github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/nft"
)

// kernel is the seam to IPVS: the methods of moby/ipvs' Handle that we use.
// Errors are errnos, as the kernel returns them: EEXIST for a duplicate, ESRCH
// for a missing service, ENOENT for a missing destination or scheduler.
type kernel interface {
	GetServices() ([]*mobyipvs.Service, error)
	GetDestinations(*mobyipvs.Service) ([]*mobyipvs.Destination, error)
	NewService(*mobyipvs.Service) error
	UpdateService(*mobyipvs.Service) error
	DelService(*mobyipvs.Service) error
	NewDestination(*mobyipvs.Service, *mobyipvs.Destination) error
	UpdateDestination(*mobyipvs.Service, *mobyipvs.Destination) error
	DelDestination(*mobyipvs.Service, *mobyipvs.Destination) error
	Close()
}

// helpers is the seam to nft.Helpers.
type helpers interface {
	Setup() error
	Check() ([]lb.Finding, error)
	Teardown() error
	SetPool(lb.Pool) error
	DelPool(netip.Prefix) error
	Pools() map[netip.Prefix]lb.Pool
	Marks() map[netip.Addr]uint32
	SetMark(netip.Addr, uint32) error
	DelMark(netip.Addr) error
	RemoveServices() error
	Close() error
}

// errStuck says that the kernel did not answer in time.
var errStuck = fmt.Errorf("%w: IPVS did not answer in time", lb.ErrDrift)

// limited puts a time limit on every call of a kernel. A call that is stuck
// keeps its goroutine; the kernel is not used again.
type limited struct {
	kernel kernel
	limit  time.Duration
	stuck  bool
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
		return err
	case <-timer.C:
		l.stuck = true
		return errStuck
	}
}

// openKernel opens moby/ipvs in a namespace.
func openKernel(path string) (kernel, error) {
	h, err := mobyipvs.New(path)
	if err != nil {
		return nil, fmt.Errorf("open IPVS: %w", err)
	}
	return h, nil
}

// probeFamily asks the kernel for the generic netlink family of IPVS, which
// makes it load the module if it may.
func probeFamily() error {
	_, err := netlink.GenlFamilyGet("IPVS")
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: kernel has no IPVS; load the module ip_vs, or use a kernel with CONFIG_IP_VS", lb.ErrUnsupported)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: no CAP_NET_ADMIN (look for IPVS: %w); run as root or grant the capability", lb.ErrUnsupported, err)
	}
	return fmt.Errorf("look for IPVS: %w", err)
}

// sysctls are the settings that the rules rely on. conn_reuse_mode is left
// alone: it is right on every kernel since 5.9.
func sysctls() []nft.Sysctl {
	all := []nft.Sysctl{
		{Key: "net/ipv4/vs/conntrack", Value: "1"},                 // masquerade by original destination (L2)
		{Key: "net/ipv4/vs/expire_nodest_conn", Value: "1"},        // UDP leaves a removed backend (L5)
		{Key: "net/ipv4/vs/expire_quiescent_template", Value: "1"}, // affinity leaves a drained one
		{Key: "net/ipv4/vs/sloppy_tcp", Value: "1", Optional: true},
	}
	if major, minor := kernelVersion(); major < 5 || major == 5 && minor < 9 {
		all = append(all, nft.Sysctl{Key: "net/ipv4/vs/conn_reuse_mode", Value: "0", Optional: true}) // 1 s stalls
	}
	return all
}

func kernelVersion() (major, minor int) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return 6, 0
	}
	_, _ = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major, minor
}
