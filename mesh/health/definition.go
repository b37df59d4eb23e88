package health

import (
	"errors"
	"fmt"
	"time"
)

// The types of checks.
const (
	TCP    = "tcp"    // a connection, with what is sent and expected, and TLS if asked for
	HTTP   = "http"   // one request
	HTTPS  = "https"  // one request over TLS
	GRPC   = "grpc"   // grpc.health.v1.Health/Check
	Exec   = "exec"   // a program on the host
	TTL    = "ttl"    // the task, or somebody for it, says that it lives
	Docker = "docker" // the verdict of the container engine, handed in by its source
)

// From where a check asks.
const (
	FromHost    = "host"    // from the host's network namespace, as peers do
	FromSandbox = "sandbox" // from inside the network namespace of the task's sandbox
)

// Bounds of definitions (C1).
const (
	MaxChecks   = 8       // checks of one task
	MaxText     = 1024    // bytes of one text: a path, what is sent, what is expected
	MaxHeaders  = 16      // headers of a request
	MaxCommand  = 64      // words of a command
	MaxEncoded  = 7 << 10 // bytes of one definition, encoded
	MaxCount    = 100     // fall, rise
	MinInterval = 100 * time.Millisecond
	MaxInterval = time.Hour
	MinTimeout  = 10 * time.Millisecond
	MaxStart    = time.Hour // of the start period
	MinTTL      = time.Second
	MaxTTL      = 24 * time.Hour
)

// Definition is a check as a person writes it. What is empty has a default; Parse says
// what is wrong. Durations are texts of Go: "300ms", "10s", "1m30s".
type Definition struct {
	// What is asked, and from where.

	// Type is tcp, http, https, grpc, exec, ttl or docker; required.
	Type string `json:"type" yaml:"type"`
	// Name tells the checks of a task apart; the type, if it is empty.
	Name string `json:"name,omitempty" yaml:"name"`
	// Port is the one that is asked; 0 is the first TCP port that the task declares.
	Port int `json:"port,omitempty" yaml:"port"`
	// Address is a loopback address to ask in place of the task's, inside its sandbox.
	Address string `json:"address,omitempty" yaml:"address"`
	// From is host, or sandbox: from inside the task's sandbox.
	From string `json:"from,omitempty" yaml:"from"`

	// Of http and https.

	// Path is that of the request, with its query; "/" if it is empty.
	Path string `json:"path,omitempty" yaml:"path"`
	// Host is the header of that name, and the server name of TLS; else the address.
	Host string `json:"host,omitempty" yaml:"host"`
	// Method is GET, HEAD, POST, PUT or OPTIONS; GET if it is empty.
	Method string `json:"method,omitempty" yaml:"method"`
	// Headers are further headers of the request.
	Headers map[string]string `json:"headers,omitempty" yaml:"headers"`
	// Status are the codes of success: "200-399" if it is empty, else as "200-299,401".
	Status string `json:"status,omitempty" yaml:"status"`

	// Of tcp.

	// Send is written to the connection.
	Send string `json:"send,omitempty" yaml:"send"`
	// Expect is a text that the first 4 KiB of the answer (http, https: of the body) must contain.
	Expect string `json:"expect,omitempty" yaml:"expect"`

	// Of TLS: https, and tcp and grpc if asked for.

	// TLS asks over TLS (tcp, grpc).
	TLS bool `json:"tls,omitempty" yaml:"tls"`
	// ServerName is the name that the certificate must have; Host, or the address, if it is empty.
	ServerName string `json:"server_name,omitempty" yaml:"server-name"`
	// SkipVerify takes any certificate.
	SkipVerify bool `json:"skip_verify,omitempty" yaml:"skip-verify"`

	// Of grpc, exec and ttl.

	// Service is the name that the gRPC server is asked for; empty is the server itself.
	Service string `json:"service,omitempty" yaml:"service"`
	// Command is the program, by its absolute path, and its arguments: no shell.
	Command []string `json:"command,omitempty" yaml:"command"`
	// TTL is how long a heartbeat is good for.
	TTL string `json:"ttl,omitempty" yaml:"ttl"`

	// When it is asked, and what follows.

	// Interval is between the beginnings of two runs; 10s.
	Interval string `json:"interval,omitempty" yaml:"interval"`
	// Timeout is of one run, at most the interval; 3s, or the interval if that is shorter.
	Timeout string `json:"timeout,omitempty" yaml:"timeout"`
	// Fall is how many failures in a row make a healthy task fail; 3.
	Fall int `json:"fall,omitempty" yaml:"fall"`
	// Rise is how many successes in a row make a failing task healthy; 2.
	Rise int `json:"rise,omitempty" yaml:"rise"`
	// StartPeriod is how long failures of a new task do not count; 0s.
	StartPeriod string `json:"start_period,omitempty" yaml:"start-period"`
	// StartInterval is the interval until the first success; 1s, or the interval if that is shorter.
	StartInterval string `json:"start_interval,omitempty" yaml:"start-interval"`
	// FailingInterval is the interval after a failure; 2s, or the interval if that is shorter.
	FailingInterval string `json:"failing_interval,omitempty" yaml:"failing-interval"`
}

// FieldError says which field of a definition is wrong, why, and what to write.
type FieldError struct {
	Field   string // as in a file: "start-period"
	Problem string // what is wrong with it
	Fix     string // what to write, for people
}

// Error names the field and the problem.
func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// wrong returns a FieldError.
func wrong(field, fix, format string, args ...any) error {
	return &FieldError{Field: field, Fix: fix, Problem: fmt.Sprintf(format, args...)}
}

// within prefixes the field of a FieldError.
func within(prefix string, err error) error {
	if e, ok := errors.AsType[*FieldError](err); ok {
		return &FieldError{Field: prefix + "." + e.Field, Problem: e.Problem, Fix: e.Fix}
	}
	return err
}
