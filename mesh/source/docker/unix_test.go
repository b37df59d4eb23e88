package docker_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"meshd/mesh/source"
	"meshd/mesh/source/docker"
	"meshd/mesh/source/docker/dockertest"
	"meshd/mesh/source/sourcetest"
)

// The source talks to an engine on a unix socket, the second of the paths that it knows.
func TestUnixSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "e.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	engine := dockertest.New()
	defer engine.Close()
	go func() { _ = engine.Serve(l) }()
	id := engine.Start(dockertest.Container{
		Name: "web-1", Labels: map[string]string{"mesh.network": "front", "mesh.service": "web"},
		Networks: map[string]netip.Addr{"bridge": netip.MustParseAddr("172.17.0.2")},
	})
	sink, synced := &sourcetest.Sink{}, make(chan string, 1)
	s := docker.New(docker.Config{
		Sockets: []string{filepath.Join(dir, "none.sock"), path}, Sink: told{sink, synced},
		NodeAddrs: func() []netip.Addr { return nil }, Processes: engine.Processes.Open,
		Condition: func(string, string) {}, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-synced
	tasks := sink.Units()[source.Unit{Origin: source.Docker, Name: id[:25]}]
	if len(tasks) != 1 || s.Stats().Socket != path {
		t.Errorf("%+v at %s", tasks, s.Stats().Socket)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// told is a sink that says when everything was handed over.
type told struct {
	*sourcetest.Sink
	synced chan string
}

func (s told) Synced(ctx context.Context, origin string) error {
	err := s.Sink.Synced(ctx, origin)
	s.synced <- origin
	return err
}
