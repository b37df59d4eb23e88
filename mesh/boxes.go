package mesh

import (
	"context"
	"errors"

	"meshd/lb/holder"
	"meshd/mesh/internal/balancing"
	"meshd/mesh/internal/box"
	"meshd/mesh/internal/names"
	"meshd/mesh/internal/registry"
	"meshd/mesh/internal/store"
	"meshd/resolver"
	"meshd/state"
)

// openSandboxes finds the sandboxes of the last life again. It comes before restore.
func (n *Node) openSandboxes() (err error) {
	n.boxes, err = box.Open(box.Config{
		Store: sandboxesFile{n.dir}, Registry: boxRegistry{n.reg, n.TaskAPI},
		Balancing: boxBalancing{n.balancing}, Names: boxNames{n.dns},
		Open: box.OpenNamespace, Keeper: box.NewKeeper(), Emit: n.emit,
		Condition: func(key, text string) { n.notices.Set(key, text) }, Log: n.log,
	})
	if err != nil {
		return sandboxesError(n.dir, err)
	}
	n.API = n.boxes.API()
	n.late = append(n.late, n.boxes.Claim)
	return nil
}

// sandboxesFile is sandboxes.json in the data directory.
type sandboxesFile struct{ dir *store.Dir }

func (f sandboxesFile) Load(v any) error { return f.dir.Load(fileSandboxes, v) }
func (f sandboxesFile) Save(v any) error { return f.dir.Save(fileSandboxes, v) }

// readSandboxes reads sandboxes.json.
func readSandboxes(dir *store.Dir) ([]box.Saved, error) {
	list, err := box.Read(sandboxesFile{dir})
	return list, sandboxesError(dir, err)
}

// sandboxesError says what to do about a file that meshd cannot have written.
func sandboxesError(dir *store.Dir, err error) error {
	if corrupt, ok := errors.AsType[*box.CorruptError](err); ok {
		return dir.Corrupted(fileSandboxes, corrupt, "restore it from a backup, or move it away and attach again")
	}
	return err
}

// boxRegistry is the registry as sandboxes see it.
type boxRegistry struct {
	*registry.Registry
	*registry.TaskAPI
}

// Listens implements box.Registry.
func (r boxRegistry) Listens(network, service, task string) (ports []box.Port, ok bool) {
	e, ok := r.Snapshot().Task(network, task)
	if !ok || e.Service != service {
		return nil, false
	}
	for _, p := range e.Ports {
		ports = append(ports, box.Port{Number: p.Listens(), UDP: p.Proto == state.UDP})
	}
	return ports, true
}

// boxNames is the name server as sandboxes see it.
type boxNames struct{ dns *names.Server }

// Listen implements box.Names.
func (d boxNames) Listen(l box.Listener) (box.Server, error) {
	bound, err := d.dns.Listen(resolver.Listener{
		Networks: l.Networks, VIPsUsable: l.VIPsUsable, Client: l.Client, Packet: l.Packet, Stream: l.Stream,
		Bare: l.Bare,
	})
	if err != nil {
		return nil, err
	}
	return bound, nil
}

// boxBalancing is the load balancing of sandboxes.
type boxBalancing struct{ *balancing.Host }

// Hold implements box.Balancing.
func (boxBalancing) Hold(path string) box.Holder { return holder.New(path) }

// Make implements box.Balancing.
func (b boxBalancing) Make(at box.Namespaced) (box.Balancer, error) {
	one, err := b.Host.Make(balancing.Namespace(at))
	if err != nil {
		return nil, err
	}
	return one, nil
}

// RemoveAll implements box.Balancing.
func (b boxBalancing) RemoveAll(ctx context.Context, at box.Namespaced) map[string]error {
	return b.Host.RemoveAll(ctx, balancing.Namespace(at))
}
