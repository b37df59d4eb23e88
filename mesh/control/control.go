// Package control is the API between meshctl (or any program) and meshd: HTTP
// and JSON on a unix socket. It holds the types of the API, the handler that
// meshd serves over its Backend, and the client. docs/API.md describes the
// routes for people who write neither Go nor this package.
//
// A Client has the methods of a Backend, so that code may be given either.
package control

import (
	"context"
	"io"
)

// Backend is what a node does for its control API. Package mesh implements it,
// and Client calls one over the socket. All methods are safe for concurrent use
// and return soon after ctx ends. The caller owns what they return.
//
// The handler checks what needs no knowledge of the node, with the Parse and
// Check methods of the request types, before it calls a Backend. A Backend
// refuses with the *Error that Refuse returns, whose hint says what to do next.
// An error that wraps state.ErrInvalid becomes CodeInvalid, and the end of ctx
// CodeTimeout; any other error is logged and becomes CodeInternal.
type Backend interface {
	NodeBackend
	NetworkBackend
	TaskBackend
	ServiceBackend
	SandboxBackend
	SourceBackend
	KeyBackend
}

// NodeBackend is the part of Backend about this node and its peers.
type NodeBackend interface {
	// Version says which build the daemon is.
	Version(ctx context.Context) (Version, error)
	// Status describes this node.
	Status(ctx context.Context) (Status, error)
	// Doctor examines the host and returns its findings, faults first.
	Doctor(ctx context.Context) (Doctor, error)
	// Nodes lists the known members, this node included, sorted by name. Dead
	// and left members stay listed as long as they are remembered.
	Nodes(ctx context.Context) ([]Node, error)
	// Join contacts the addresses and returns when each has answered or
	// failed. It refuses if none answered.
	Join(ctx context.Context, req JoinRequest) (JoinReply, error)
	// Leave states this node's last, empty snapshot (S9) and says goodbye. If
	// the reply says Stopping, the daemon ends after the reply is sent.
	Leave(ctx context.Context) (LeaveReply, error)
	// Metrics writes all metrics in the Prometheus text format.
	Metrics(ctx context.Context, w io.Writer) error
	// Diff asks every live node for its table checksums and returns what it
	// got, after Diff.Compare. A live node that does not answer in time is in
	// Silent; it is no error. Dead and left nodes are not asked.
	Diff(ctx context.Context, req DiffRequest) (Diff, error)
	// Spread asks every live node whether what this node knows and states of a
	// network is in effect there, this one included. A node that does not answer
	// in time is a result with an error, as is one that is not done.
	Spread(ctx context.Context, req SpreadRequest) (Spread, error)
	// Watch calls emit for each event, in order, until ctx ends, emit fails
	// or the node stops, and returns why. The first event is EventStart or
	// EventReset. EventLog implements it.
	Watch(ctx context.Context, req WatchRequest, emit func(Event) error) error
}

// NetworkBackend is the part of Backend about networks.
type NetworkBackend interface {
	// CreateNetwork defines a network (V6). It refuses an overlap with another
	// network, and another definition of the same name; the same definition
	// again is no error.
	CreateNetwork(ctx context.Context, req CreateNetwork) (Network, error)
	// Networks lists the known networks, sorted by name.
	Networks(ctx context.Context) ([]Network, error)
	// Network describes one network. It returns CodeNotFound if there is none.
	Network(ctx context.Context, name string) (NetworkDetail, error)
	// RemoveNetwork deletes a network. It refuses while tasks use it.
	RemoveNetwork(ctx context.Context, name string) error
}

// TaskBackend is the part of Backend about the tasks of this node.
type TaskBackend interface {
	// AddTask registers a task on this node, persistently. It generates the id
	// if the request has none and refuses one that is in use. The reply's
	// warnings say what works less well than asked (V7).
	AddTask(ctx context.Context, req AddTask) (TaskAdded, error)
	// RemoveTask deregisters a task of this node. It refuses a task of another
	// node, and says whose it is. Without a network, it returns CodeConflict for
	// an id that is in several.
	RemoveTask(ctx context.Context, ref TaskRef) (Task, error)
	// DrainTask stops new connections to a task of this node; those that are open
	// may finish. It refuses as RemoveTask does.
	DrainTask(ctx context.Context, ref TaskRef) (Task, error)
	// Tasks lists tasks, sorted as SortTasks does.
	Tasks(ctx context.Context, f TaskFilter) ([]Task, error)
}

// ServiceBackend is the part of Backend about services as this node sees them.
type ServiceBackend interface {
	// Services lists services, sorted by network and name. An empty network
	// means all.
	Services(ctx context.Context, network string) ([]Service, error)
	// Service describes one service, or returns CodeNotFound.
	Service(ctx context.Context, ref ServiceRef) (ServiceDetail, error)
	// SetService changes the settings of a service that this node hosts, on every
	// node. It refuses a service of other nodes only, with their names in the hint.
	SetService(ctx context.Context, ref ServiceRef, req SetService) (Service, error)
	// ServiceTasks lists the tasks of a service on all nodes, or returns
	// CodeNotFound.
	ServiceTasks(ctx context.Context, ref ServiceRef) ([]Task, error)
	// Resolve resolves a name as the DNS server of this node would and says
	// how. A name that does not exist is an answer (RCode NXDOMAIN), no error.
	Resolve(ctx context.Context, req ResolveRequest) (Resolution, error)
	// LB returns the desired load balancer table beside the actual one.
	LB(ctx context.Context, req LBRequest) (LBTable, error)
	// VerifyLB reads back what the kernel holds, compares it with what should be
	// there, and repairs it. A difference is part of the reply, not an error.
	VerifyLB(ctx context.Context, req LBVerifyRequest) (LBVerifyReply, error)
}

// KeyBackend is the part of Backend about the gossip keyring (G9). Each method
// acts on every node and returns one result per node; a node that failed or
// did not answer is in the result, not in the error.
type KeyBackend interface {
	// InstallKey adds a key to every keyring, for decryption only.
	InstallKey(ctx context.Context, req KeyRequest) (KeyReply, error)
	// UseKey makes an installed key the one to encrypt with. It refuses a key
	// that some live node lacks.
	UseKey(ctx context.Context, req KeyRequest) (KeyReply, error)
	// RemoveKey deletes a key. It refuses the key in use, and refuses while a
	// node lags or does not answer.
	RemoveKey(ctx context.Context, req KeyRequest) (KeyReply, error)
	// Keys lists the keys and how many nodes have each.
	Keys(ctx context.Context) (KeyReply, error)
}
