package box

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"meshd/mesh/control"
	"meshd/mesh/sandbox"
)

// Store keeps sandboxes.json.
type Store interface {
	// Load decodes the file into v. If there is no file, v stays as it is.
	Load(v any) error
	// Save replaces the file by v in JSON.
	Save(v any) error
}

// Registry is where a sandbox registers its task and keeps its networks.
type Registry interface {
	// RestoreHold and RestoreWithout say what Open found. They come before any other call.
	RestoreHold(networks []string)
	RestoreWithout(networks []string, service, task string)
	// Hold makes the node take part in networks, and Release ends that.
	Hold(ctx context.Context, networks []string) error
	Release(ctx context.Context, networks []string)
	// AdmitTasks refuses tasks whose ids are in use, before anything is changed.
	AdmitTasks(all []control.AddTask) error
	// Register adds a task, also at the address of the tasks in replaces, by id.
	Register(ctx context.Context, t control.AddTask, replaces map[string]bool) (control.TaskAdded, error)
	// RemoveTask removes a task of this node.
	RemoveTask(ctx context.Context, ref control.TaskRef) (control.Task, error)
	// Listens returns the ports of a task that is registered in a network; none: all ports.
	Listens(network, service, task string) (ports []Port, ok bool)
}

// Port is one at which a task listens.
type Port struct {
	Number uint16 // in host byte order
	UDP    bool   // else TCP
}

// Balancing makes the load balancers of sandboxes.
type Balancing interface {
	// Make makes the balancer of a namespace. Its caller starts or closes it.
	Make(n Namespaced) (Balancer, error)
	// RemoveAll removes whatever any driver has made in a namespace, and returns what could
	// not be removed, by driver.
	RemoveAll(ctx context.Context, n Namespaced) map[string]error
	// Hold takes the right to program a namespace for this process (L10).
	Hold(path string) Holder
	// Spend runs f, which looks at rules because others wrote to them, and returns how long
	// there is to be none for it (L15).
	Spend(f func()) (rest time.Duration)
}

// Namespaced says for which namespace a balancer is.
type Namespaced struct {
	Name       string       // of the sandbox
	Path       string       // of the namespace
	Networks   []string     // that it serves
	Addresses  []netip.Addr // of the container
	MayProgram func() error // takes the namespace's load balancing, or says whose it is (L10)
	Log        *slog.Logger // of the sandbox
}

// Holder is the right to program one namespace.
type Holder interface {
	Take() error
	Release() error
}

// Balancer is the load balancer of one namespace, with what watches the namespace for
// it. Its methods are safe for concurrent use.
type Balancer interface {
	// Start begins to balance. The caller calls stop, which ends it and returns when all
	// of it has ended, or ends ctx first; it must call stop in any case.
	Start(ctx context.Context) (stop func())
	// Close releases a balancer that was not started.
	Close() error
	// Working reports whether the VIPs of a network work.
	Working(network string) bool
	// Pending reports whether they do not work yet and may soon.
	Pending(network string) bool
	// Driver returns the name of what programs the kernel, or "".
	Driver() string
	// Pools returns the pools that are served.
	Pools() []netip.Prefix
	// Problems says, for people, what does not work.
	Problems() []string
	// Table describes what should be balanced beside what is.
	Table(ctx context.Context) (control.LBTable, error)
	// Changes receives when others have written to the namespace's rules. Deaf reports that
	// the kernel does not tell of it.
	Changes() <-chan struct{}
	Deaf() bool
}

// Names answers names in sandboxes.
type Names interface {
	// Listen answers on the listener's sockets until the Server is closed.
	Listen(l Listener) (Server, error)
}

// Listener says for whom names are answered on which sockets.
type Listener struct {
	Networks   []string                  // in order of lookup
	VIPsUsable func(network string) bool // whether VIPs work there, at the moment
	Client     netip.Addr                // of the container
	Packet     net.PacketConn            // for UDP
	Stream     net.Listener              // for TCP
	// Bare asks the name server that the container had before for a single label that no
	// network knows; nil without an error: there is none.
	Bare func(ctx context.Context, q *dns.Msg) (*dns.Msg, error)
}

// Server is a name server that has been opened.
type Server interface {
	// Close ends it. Questions that are not answered when ctx ends are dropped.
	Close(ctx context.Context) error
}

// Namespace is a container's network namespace: a sandbox.Namespace, or a test's.
type Namespace interface {
	Path() string
	Identity() sandbox.Identity
	Addrs() ([]netip.Addr, error)
	Died() <-chan struct{}
	Gone() error
	Listen(port uint16) (*sandbox.Sockets, error)
	Redirect(port uint16) error
	Redirected(port uint16) (bool, error)
	RemoveRedirect() error
	Do(f func() error) error
	Close() error
}

// OpenNamespace opens a network namespace of this host.
func OpenNamespace(t sandbox.Target) (Namespace, error) {
	ns, err := sandbox.Open(t)
	if err != nil {
		return nil, err
	}
	return ns, nil
}
