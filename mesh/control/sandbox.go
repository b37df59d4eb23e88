package control

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"meshd/state"
)

// SandboxBackend is the part of Backend about containers whose network
// namespace has a name server and a load balancer of its own (L4).
type SandboxBackend interface {
	// AttachSandbox attaches a namespace, persistently, and returns when names
	// and VIPs work in it, or with warnings that say what does not. With a task
	// it registers that in every network of the sandbox. If it fails, it leaves
	// nothing behind.
	AttachSandbox(ctx context.Context, req AttachSandbox) (SandboxAttached, error)
	// DetachSandbox removes what AttachSandbox made, the tasks included. It
	// returns CodeNotFound if no sandbox has that name or id.
	DetachSandbox(ctx context.Context, ref string) (SandboxDetached, error)
	// Sandboxes lists the sandboxes of this node, sorted by name.
	Sandboxes(ctx context.Context) ([]Sandbox, error)
	// Sandbox describes one sandbox with its load balancer's table, or returns
	// CodeNotFound.
	Sandbox(ctx context.Context, ref string) (SandboxDetail, error)
}

// The states of a Sandbox.
const (
	SandboxStarting = "starting" // being attached, or taken over after a restart
	SandboxReady    = "ready"    // names and VIPs work in it
	SandboxDegraded = "degraded" // Problems says what does not work
	SandboxEnding   = "ending"   // being detached, or its namespace is gone
)

// ResolvConfAuto as AttachSandbox.ResolvConf stands for /etc/resolv.conf as the
// process PID sees it, or for /etc/netns/NAME/resolv.conf, which "ip netns
// exec" shows to what it starts, if Netns is /run/netns/NAME.
const ResolvConfAuto = "auto"

// AttachSandbox attaches a network namespace. Exactly one of Netns and PID is
// given.
type AttachSandbox struct {
	// Networks in the order in which short names are looked up: the first that
	// knows a name answers.
	Networks []string `json:"networks"`
	// Netns is the path of the namespace, or NAME for /run/netns/NAME. The
	// sandbox ends when the path is gone or is another namespace's.
	Netns string `json:"netns,omitempty"`
	// PID is a process in the namespace. The sandbox ends with the process.
	PID  int    `json:"pid,omitempty"`
	Name string `json:"name,omitempty"` // unique on this node; empty: the generated id
	// ResolvConf is a file to name the sandbox's server in, or ResolvConfAuto.
	ResolvConf string `json:"resolv_conf,omitempty"`
	// Task registers the container as a task in each of Networks, with the name
	// of the sandbox. Its own Network and Name stay empty, and its IPs may: then
	// they are found in the namespace.
	Task *AddTask `json:"task,omitempty"`
}

// Sandbox is one attached namespace.
type Sandbox struct {
	ID        string       `json:"id"`
	Name      string       `json:"name"`
	State     string       `json:"state"` // SandboxReady, ...
	Networks  []string     `json:"networks"`
	Netns     string       `json:"netns,omitempty"`
	PID       int          `json:"pid,omitempty"`
	Inode     uint64       `json:"inode"` // of the namespace, as readlink /proc/PID/ns/net shows it
	Addresses []netip.Addr `json:"addresses"`
	DNS       string       `json:"dns"`       // where its processes ask; empty: nowhere
	LBDriver  string       `json:"lb_driver"` // ipvs, nft, none
	Service   string       `json:"service,omitempty"`
	Task      string       `json:"task,omitempty"` // the id of its task
	Since     time.Time    `json:"since"`          // of the attachment
	Problems  []string     `json:"problems"`       // what does not work, for people
}

// SandboxAttached is the reply to AttachSandbox.
type SandboxAttached struct {
	Sandbox  Sandbox  `json:"sandbox"`
	Warnings []string `json:"warnings"`
}

// SandboxDetached is the reply to DetachSandbox.
type SandboxDetached struct {
	Sandbox  Sandbox  `json:"sandbox"`
	Warnings []string `json:"warnings"` // what could not be put back
}

// SandboxDetail is Sandbox with what only inspection shows.
type SandboxDetail struct {
	Sandbox
	Redirected bool    `json:"redirected"` // port 53 leads to DNSPort by nftables; else the server is on port 53 itself
	DNSPort    uint16  `json:"dns_port"`   // on which the server listens
	ResolvConf string  `json:"resolv_conf,omitempty"`
	LB         LBTable `json:"lb"` // of its own balancer
}

// ParsedSandbox is what AttachSandbox asks for, checked.
type ParsedSandbox struct {
	Networks   []string
	Netns      string // absolute
	PID        int
	Name       string
	ResolvConf string
	Tasks      []AddTask // one per network, checked but for IPs that are to be found
}

// Parse checks the request and converts it. The error is an *Error of
// CodeInvalid that names the field and the fix.
func (r AttachSandbox) Parse() (ParsedSandbox, error) {
	p := ParsedSandbox{PID: r.PID, Name: strings.ToLower(r.Name), ResolvConf: r.ResolvConf}
	for _, check := range []func(*ParsedSandbox) error{r.parseNetworks, r.parseTarget, r.parseNames, r.parseTask} {
		if err := check(&p); err != nil {
			return ParsedSandbox{}, err
		}
	}
	return p, nil
}

// maxSandboxNetworks bounds the networks of one sandbox.
const maxSandboxNetworks = 64

func (r AttachSandbox) parseNetworks(p *ParsedSandbox) error {
	if len(r.Networks) == 0 {
		return invalid("networks", "name one at least; meshctl network ls lists them", "a sandbox needs a network")
	}
	if len(r.Networks) > maxSandboxNetworks {
		return invalid("networks", "attach to fewer", "%d networks, at most %d", len(r.Networks), maxSandboxNetworks)
	}
	for _, n := range r.Networks {
		n = strings.ToLower(n)
		if err := CheckName("networks", n); err != nil {
			return err
		}
		if slices.Contains(p.Networks, n) {
			return invalid("networks", "name each network once", "%q is given twice", n)
		}
		p.Networks = append(p.Networks, n)
	}
	return nil
}

func (r AttachSandbox) parseTarget(p *ParsedSandbox) error {
	const example = "give the path of a network namespace, as /run/netns/web, or a process in it"
	switch {
	case r.PID < 0 || r.PID > 1<<22: // the kernel's limit
		return invalid("pid", "give the id of a process in the container, a number", "%d is not the id of a process", r.PID)
	case (r.Netns == "") == (r.PID == 0):
		return invalid("netns", example, "exactly one of netns and pid is needed")
	case r.PID > 0:
		return nil
	case len(r.Netns) > 4096 || strings.ContainsRune(r.Netns, 0):
		return invalid("netns", example, "it cannot be a path")
	case !strings.Contains(r.Netns, "/") && r.Netns != "." && r.Netns != "..":
		p.Netns = path.Join("/run/netns", r.Netns)
	case !path.IsAbs(r.Netns):
		return invalid("netns", "write the absolute path, or only the name of a namespace of \"ip netns\"",
			"%q is relative: meshd does not know to what", r.Netns)
	default:
		p.Netns = path.Clean(r.Netns)
	}
	return nil
}

func (r AttachSandbox) parseNames(p *ParsedSandbox) error {
	if p.Name != "" {
		if err := state.CheckTaskName(p.Name); err != nil {
			return invalid("name", nameHint, "%s", reason(err))
		}
	}
	switch f := r.ResolvConf; {
	case f == "":
	case f == ResolvConfAuto:
		if dir := path.Dir(p.Netns); p.PID == 0 && dir != "/run/netns" && dir != "/var/run/netns" {
			return invalid("resolv_conf", "name the file that the container sees as /etc/resolv.conf, or give its pid",
				"auto needs a pid or a namespace in /run/netns")
		}
	case !path.IsAbs(f) || len(f) > 4096 || strings.ContainsRune(f, 0):
		return invalid("resolv_conf", "write an absolute path, or auto", "%q is not an absolute path", f)
	}
	return nil
}

// someIP stands for the address that will be found in the namespace.
const someIP = "10.0.0.1"

func (r AttachSandbox) parseTask(p *ParsedSandbox) error {
	if r.Task == nil {
		return nil
	}
	t := *r.Task
	if t.Network != "" || t.Name != "" {
		return invalid("task", "leave its network and name out: they are the sandbox's",
			"it has a network or a name of its own")
	}
	t.Name = p.Name
	for _, n := range p.Networks {
		t.Network = n
		check := t
		if len(t.IPs) == 0 {
			check.IPs = []string{someIP}
		}
		if _, err := check.Parse(); err != nil {
			return err
		}
		p.Tasks = append(p.Tasks, t)
	}
	if len(t.VIPs) > 0 && len(p.Networks) > 1 {
		return invalid("vips", "pin it with: meshctl task add", "a VIP belongs to one network, the sandbox to %d",
			len(p.Networks))
	}
	return nil
}

// CheckSandbox reports why s cannot be the name or id of a sandbox, as an
// *Error of CodeInvalid.
func CheckSandbox(s string) error {
	if s == "" {
		return invalid("sandbox", "name the sandbox; meshctl sandbox ls lists them", "it is missing")
	}
	if err := state.CheckDotted(s); err != nil {
		return invalid("sandbox", nameHint, "%s", reason(err))
	}
	return nil
}

func (h *handler) sandboxRoutes() {
	h.handle("GET /v1/sandboxes", quickLimit, nil, func(r *http.Request) (any, error) {
		return h.backend.Sandboxes(r.Context())
	})
	h.handle("POST /v1/sandboxes", meshLimit, nil, func(r *http.Request) (any, error) {
		var req AttachSandbox
		if err := decode(r, &req); err != nil {
			return nil, err
		}
		if _, err := req.Parse(); err != nil {
			return nil, err
		}
		return h.backend.AttachSandbox(r.Context(), req)
	})
	h.handle("GET /v1/sandboxes/{sandbox}", quickLimit, nil, func(r *http.Request) (any, error) {
		ref, err := sandboxRef(r)
		if err != nil {
			return nil, err
		}
		return h.backend.Sandbox(r.Context(), ref)
	})
	h.handle("DELETE /v1/sandboxes/{sandbox}", meshLimit, nil, func(r *http.Request) (any, error) {
		ref, err := sandboxRef(r)
		if err != nil {
			return nil, err
		}
		return h.backend.DetachSandbox(r.Context(), ref)
	})
}

func sandboxRef(r *http.Request) (string, error) {
	s := strings.ToLower(r.PathValue("sandbox"))
	return s, CheckSandbox(s)
}

// AttachSandbox implements Backend.
func (c *Client) AttachSandbox(ctx context.Context, req AttachSandbox) (SandboxAttached, error) {
	return call[SandboxAttached](ctx, c, http.MethodPost, "/v1/sandboxes", nil, req)
}

// DetachSandbox implements Backend.
func (c *Client) DetachSandbox(ctx context.Context, ref string) (SandboxDetached, error) {
	p, err := sandboxPath(ref)
	if err != nil {
		return SandboxDetached{}, err
	}
	return call[SandboxDetached](ctx, c, http.MethodDelete, p, nil, nil)
}

// Sandboxes implements Backend.
func (c *Client) Sandboxes(ctx context.Context) ([]Sandbox, error) {
	return call[[]Sandbox](ctx, c, http.MethodGet, "/v1/sandboxes", nil, nil)
}

// Sandbox implements Backend.
func (c *Client) Sandbox(ctx context.Context, ref string) (SandboxDetail, error) {
	p, err := sandboxPath(ref)
	if err != nil {
		return SandboxDetail{}, err
	}
	return call[SandboxDetail](ctx, c, http.MethodGet, p, nil, nil)
}

func sandboxPath(ref string) (string, error) {
	ref = strings.ToLower(ref)
	if err := CheckSandbox(ref); err != nil {
		return "", err
	}
	return url.JoinPath("/v1/sandboxes", ref)
}
