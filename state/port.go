package state

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// This file owns what a port of a task is: how a person writes it, and what it means.

// Proto is an IP protocol number of a declared port.
type Proto uint8

// The protocols that a port can have.
const (
	TCP Proto = 6
	UDP Proto = 17
)

func (p Proto) known() bool { return p == TCP || p == UDP }

// String returns "tcp" or "udp".
func (p Proto) String() string {
	if p == UDP {
		return "udp"
	}
	return "tcp"
}

// Port is a port that an endpoint declares: its service has it at the VIP, and the
// endpoint gets the connections to it (L12).
type Port struct {
	Name   string // the SRV label (_name._proto); empty: none
	Number uint16 // the service's: what clients of the VIP use; never 0
	Target uint16 // where the endpoint itself listens; 0: at Number (L16)
	Proto  Proto  // of both
}

// Listens returns the port at which the endpoint itself listens: never 0 for a port of
// an endpoint that is valid.
func (p Port) Listens() uint16 { return cmp.Or(p.Target, p.Number) }

// String formats p as [NAME:]PORT[:TARGET]/PROTO, the form that ParsePort reads.
func (p Port) String() string {
	s := strconv.Itoa(int(p.Number))
	if p.Name != "" {
		s = p.Name + ":" + s
	}
	if p.Target != 0 {
		s += ":" + strconv.Itoa(int(p.Target))
	}
	return s + "/" + p.Proto.String()
}

// ofService returns the port as the service has it, whichever target a task has.
func (p Port) ofService() Port {
	p.Target = 0
	return p
}

// ParsePort reads [NAME:]PORT[:TARGET][/tcp|udp]: PORT is the service's, TARGET the
// task's own, in Docker's order. A TARGET that equals PORT is left out. The error names
// what is wrong, and which of the two.
func ParsePort(s string) (Port, error) {
	p := Port{Proto: TCP}
	rest, proto, hasProto := strings.Cut(s, "/")
	if hasProto {
		switch strings.ToLower(proto) {
		case "tcp":
		case "udp":
			p.Proto = UDP
		default:
			return Port{}, badProtocol(s, rest, proto)
		}
	}
	parts := strings.Split(rest, ":")
	if len(parts) > 1 && (len(parts) > 2 || hasLetter(parts[0])) {
		if err := p.setName(s, parts); err != nil {
			return Port{}, err
		}
		parts = parts[1:]
	}
	var err error
	if p.Number, err = parseService(s, parts[0]); err != nil {
		return Port{}, err
	}
	if len(parts) > 1 {
		if p.Target, err = p.parseTarget(s, parts[1]); err != nil {
			return Port{}, err
		}
	}
	return p, nil
}

// setName takes the first of the parts for the name. A name needs a letter: it would
// pass for a number in SRV.
func (p *Port) setName(s string, parts []string) error {
	if len(parts) > 3 || !hasLetter(parts[0]) {
		inner := strings.Join(parts[len(parts)-2:], ":")
		if _, err := ParsePort(inner); err != nil {
			inner = "8080:80"
		}
		return fmt.Errorf("port %q: it has a name, the service's port and the task's own at most, as in http:8080:80, and "+
			"no address; write %s", s, inner)
	}
	p.Name = strings.ToLower(parts[0])
	if err := checkLabel(p.Name); err != nil {
		return fmt.Errorf("port %q: name: %w", s, err)
	}
	return nil
}

// parseService reads the port of the service. Who writes none for it means all ports.
func parseService(s, text string) (uint16, error) {
	n, ok := portNumber(text)
	switch {
	case ok:
		return n, nil
	case !strings.Contains(s, ":"):
		return 0, fmt.Errorf("port %q: %q is not a number from 1 to 65535", s, text)
	case text == "" || text == "0" || text == "*":
		return 0, fmt.Errorf("port %q: the service's port is missing; a task that is at all ports of its service declares "+
			"none, and is reached at the ports that clients use", s)
	}
	return 0, fmt.Errorf("port %q: the service's port %q is not a number from 1 to 65535", s, text)
}

// parseTarget reads the task's own port, which is behind the service's.
func (p *Port) parseTarget(s, text string) (uint16, error) {
	n, ok := portNumber(text)
	word := strings.ToLower(text)
	switch {
	case ok && n == p.Number:
		return 0, nil
	case ok:
		return n, nil
	case word == "tcp" || word == "udp":
		return 0, fmt.Errorf("port %q: the protocol is behind a slash; write %d/%s", s, p.Number, word)
	case p.Name == "" && hasLetter(word) && checkLabel(word) == nil:
		return 0, fmt.Errorf("port %q: the name comes first; write %s:%d", s, word, p.Number)
	}
	return 0, fmt.Errorf("port %q: %q is not a number from 1 to 65535; it is where the task listens, and %d before it is "+
		"the service's port", s, text, p.Number)
}

// portNumber reads a number from 1 to 65535, in digits only.
func portNumber(text string) (uint16, bool) {
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' || n > 65535 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return uint16(n), n >= 1 && n <= 65535
}

// badProtocol refuses what is behind the slash, and knows those who write the
// protocol first, or in the middle.
func badProtocol(s, num, proto string) error {
	known := func(s string) bool { return s == "tcp" || s == "udp" }
	turned := ""
	before, after, middle := strings.Cut(proto, ":")
	switch before, num := strings.ToLower(before), strings.ToLower(num); {
	case middle && known(before) && !strings.Contains(after, "/"): // 80/tcp:8080
		turned = num + ":" + after + "/" + before
	case known(num) && strings.Trim(proto, "0123456789:") == "": // tcp/80
		turned = proto + "/" + num
	case hasLetter(num) && numeric(proto): // http/80
		turned = num + ":" + proto
	}
	if turned != "" { // its protocol is right, so that this ends
		if _, err := ParsePort(turned); err == nil {
			return fmt.Errorf("port %q: the protocol comes last; write %s", s, turned)
		}
	}
	return fmt.Errorf("port %q: protocol %q: use tcp or udp", s, proto)
}

// validatePorts reports the first thing that is wrong with the ports of e: a number,
// a protocol, or one port of the service with two targets.
func (e *Endpoint) validatePorts() error {
	mapped := false
	for _, p := range e.Ports {
		if p.Number == 0 || !p.Proto.known() {
			return fieldError("ports", fmt.Errorf("port %s: use a number from 1 to 65535 with tcp or udp", p))
		}
		mapped = mapped || p.Target != 0
	}
	if !mapped {
		return nil
	}
	for i, p := range e.Ports {
		for _, q := range e.Ports[:i] {
			if p.Number == q.Number && p.Proto == q.Proto && p.Listens() != q.Listens() {
				return fieldError("ports", fmt.Errorf("%d/%s leads to the ports %d and %d of the task: give it one", p.Number,
					p.Proto, q.Listens(), p.Listens()))
			}
		}
	}
	return nil
}
