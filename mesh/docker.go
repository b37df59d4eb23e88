package mesh

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"meshd/mesh/config"
	"meshd/mesh/source"
	"meshd/mesh/source/docker"
)

// openDocker makes the source of containers, unless it is off.
func (n *Node) openDocker() error {
	sockets := n.cfg.EngineSockets()
	if len(sockets) == 0 {
		return nil
	}
	n.docker = docker.New(docker.Config{
		Sockets: sockets, Optional: n.cfg.Docker == config.DockerAuto, Sink: n.reg.Sink(), Sandboxes: n.boxes.API(),
		NodeAddrs: n.ownAddrs, Processes: docker.OpenProcess,
		Condition: func(key, text string) { n.notices.Set(key, text) }, Log: n.log,
	})
	n.sources = append(n.sources, n.docker.Units)
	return nil
}

// ownAddrs returns the addresses at which this host is reached, the one first that other
// nodes dial.
func (n *Node) ownAddrs() []netip.Addr {
	all := []netip.Addr{n.host.Addr().Addr()}
	found, err := net.InterfaceAddrs()
	if err != nil {
		return all
	}
	for _, a := range found {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().IsGlobalUnicast() && !slices.Contains(all, p.Addr().Unmap()) {
			all = append(all, p.Addr().Unmap())
		}
	}
	return all
}

// runDocker runs the source of containers. Where there is none, what a former life stated
// of containers goes.
func (n *Node) runDocker(ctx context.Context) error {
	if n.docker != nil {
		return n.docker.Run(ctx)
	}
	for n.reg.Sink().Synced(ctx, source.Docker) != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
	return nil
}
