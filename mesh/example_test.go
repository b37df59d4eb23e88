package mesh_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"meshd/mesh"
	"meshd/mesh/config"
	"meshd/mesh/control"
)

// A program that is a member of the mesh itself: what meshd does, without flags.
func Example() {
	n, err := mesh.New(config.Config{
		Node: "host1", Bind: "192.0.2.11", Join: []string{"192.0.2.12"}, KeyFile: "/etc/meshd/key",
		DataDir: "/var/lib/meshd", DNS: []string{"10.1.1.1"},
	}, "1.0", slog.Default())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() { // a node answers what its API answers, without the socket
		_, _ = n.AddTask(ctx, control.AddTask{
			Network: "collabnet", Service: "web", IPs: []string{"10.1.1.2"}, Ports: []string{"80"},
		})
	}()
	if err := n.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
