package control_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"meshd/mesh/control"
)

// oneTask stands in for a node: it keeps one task. A real Backend has all the
// methods; a call of one that this has not would end in a nil pointer, which the
// server reports as CodeInternal.
type oneTask struct {
	control.Backend
	task control.Task
}

// AddTask implements control.TaskBackend. The server has checked the request.
func (b *oneTask) AddTask(_ context.Context, req control.AddTask) (control.TaskAdded, error) {
	parsed, err := req.Parse()
	if err != nil {
		return control.TaskAdded{}, err
	}
	if parsed.Endpoint.ID == b.task.ID {
		return control.TaskAdded{}, control.Refuse(control.CodeConflict, "choose another id, or leave it out",
			"task %q is registered", parsed.Endpoint.ID)
	}
	b.task = control.Task{
		ID: parsed.Endpoint.ID, Network: parsed.Network, Service: parsed.Endpoint.Service, State: "serving", Node: "a",
	}
	return control.TaskAdded{Task: b.task, Mode: "vip"}, nil
}

// Tasks implements control.TaskBackend.
func (b *oneTask) Tasks(context.Context, control.TaskFilter) ([]control.Task, error) {
	return []control.Task{b.task}, nil
}

// A program registers a task with the meshd of its host, whose socket it dials.
// Here a Backend of the example's own serves that socket. Errors say on the
// program's side what they said on the daemon's.
func Example() {
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "meshd.sock") // a daemon's is control.DefaultSocket

	listener, err := control.Listen(socket)
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- control.Serve(ctx, listener, &oneTask{}, slog.New(slog.DiscardHandler)) }()

	client := control.Dial(socket)
	defer client.Close()
	request := control.AddTask{Network: "collabnet", Service: "web", ID: "3f9c", IPs: []string{"10.1.0.7"}}
	added, err := client.AddTask(ctx, request)
	fmt.Println("added", added.Task.ID, added.Mode, err)

	_, err = client.AddTask(ctx, request)
	fmt.Println("again:", err, errors.Is(err, control.ErrConflict))

	request.IPs = []string{"10.0.0.300"}
	_, err = client.AddTask(ctx, request)
	if refusal, ok := errors.AsType[*control.Error](err); ok {
		fmt.Println("field", refusal.Field, "is", refusal.Code)
		fmt.Println("hint:", strings.Split(refusal.Hint, ",")[0])
	}

	tasks, err := client.Tasks(ctx, control.TaskFilter{Network: "collabnet"})
	if err != nil {
		panic(err)
	}
	for _, t := range tasks {
		fmt.Println(t.Network, t.Service, t.ID, t.State)
	}

	stop()
	fmt.Println("stopped:", <-served)
	// Output:
	// added 3f9c vip <nil>
	// again: task "3f9c" is registered true
	// field ips is invalid
	// hint: write an address without prefix length or port
	// collabnet web 3f9c serving
	// stopped: <nil>
}
