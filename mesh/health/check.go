package health

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"
)

// Check is a definition that Parse has checked, with its defaults. It is immutable, but
// for what Definition refers to, which is not to be changed.
type Check struct {
	// Definition is what it was made from, with Name, From and the like filled in.
	Definition Definition
	// Addr is the loopback address to ask inside the sandbox; zero: the task's own.
	Addr netip.Addr
	// Codes are the ranges of status codes that are a success, of http and https.
	Codes []Codes

	// Times, and how many answers in a row make a verdict.

	// Interval is between the beginnings of two runs; 0: it is never run (ttl, docker).
	Interval time.Duration
	// Timeout ends a run; at most Interval.
	Timeout time.Duration
	// StartPeriod is how long failures of a new task do not count.
	StartPeriod time.Duration
	// StartInterval is the interval until the first success.
	StartInterval time.Duration
	// FailingInterval is the interval after a failure.
	FailingInterval time.Duration
	// TTL is how long a heartbeat is good for; 0: for ever (docker).
	TTL time.Duration
	// Fall and Rise are how many answers in a row make a verdict.
	Fall, Rise int
}

// Codes is an inclusive range of status codes.
type Codes struct{ From, To int }

// Reported says that answers are handed in, and nothing is run.
func (c *Check) Reported() bool { return c.Interval == 0 }

// HoldFor is how long the verdict of a former life of the node counts without an answer
// in this one (C4).
func (c *Check) HoldFor() time.Duration {
	return max(2*c.Interval, 30*time.Second, c.TTL)
}

// Parse checks a definition and fills in its defaults. The error is a *FieldError.
func (d Definition) Parse() (*Check, error) {
	d.Headers, d.Command = maps.Clone(d.Headers), slices.Clone(d.Command)
	c := &Check{Definition: d}
	for _, step := range []func() error{
		c.parseType, c.parseFields, c.parsePlace, c.parseHTTP, c.parseTexts, c.parseCommand, c.parseTimes, c.checkSize,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Check) parseType() error {
	d := &c.Definition
	switch d.Type = strings.ToLower(d.Type); d.Type {
	case TCP, HTTP, HTTPS, GRPC, Exec, TTL, Docker:
	case "":
		return wrong("type", "use tcp, http, https, grpc, exec or ttl", "it is missing")
	default:
		return wrong("type", "use tcp, http, https, grpc, exec or ttl", "%.40q is not known", d.Type)
	}
	d.Name = strings.ToLower(cmp.Or(d.Name, d.Type))
	if len(d.Name) > 63 || strings.ContainsFunc(d.Name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) {
		return wrong("name", "use at most 63 letters, digits, '-', '_' and '.'", "%.80q is not usable", d.Name)
	}
	return nil
}

// fieldsOf are the fields that only some types have.
var fieldsOf = map[string][]string{
	"port": {TCP, HTTP, HTTPS, GRPC}, "address": {TCP, HTTP, HTTPS, GRPC}, "from": {TCP, HTTP, HTTPS, GRPC},
	"path": {HTTP, HTTPS}, "host": {HTTP, HTTPS}, "method": {HTTP, HTTPS}, "headers": {HTTP, HTTPS},
	"status": {HTTP, HTTPS}, "send": {TCP}, "expect": {TCP, HTTP, HTTPS}, "tls": {TCP, GRPC},
	"server-name": {TCP, HTTPS, GRPC}, "skip-verify": {TCP, HTTPS, GRPC}, "service": {GRPC}, "command": {Exec},
	"ttl": {TTL}, "interval": runTypes, "timeout": runTypes, "fall": runTypes, "rise": runTypes,
	"start-period": runTypes, "start-interval": runTypes, "failing-interval": runTypes,
}

var runTypes = []string{TCP, HTTP, HTTPS, GRPC, Exec}

// given are the fields of a definition that say something.
func (d *Definition) given() map[string]bool {
	return map[string]bool{
		"port": d.Port != 0, "address": d.Address != "", "from": d.From != "" && d.From != FromHost, "path": d.Path != "",
		"host": d.Host != "", "method": d.Method != "", "headers": len(d.Headers) > 0, "status": d.Status != "",
		"send": d.Send != "", "expect": d.Expect != "", "tls": d.TLS, "server-name": d.ServerName != "",
		"skip-verify": d.SkipVerify, "service": d.Service != "", "command": len(d.Command) > 0, "ttl": d.TTL != "",
		"interval": d.Interval != "", "timeout": d.Timeout != "", "fall": d.Fall != 0, "rise": d.Rise != 0,
		"start-period": d.StartPeriod != "", "start-interval": d.StartInterval != "",
		"failing-interval": d.FailingInterval != "",
	}
}

// parseFields refuses fields of another type: who writes one expects it to do something.
func (c *Check) parseFields() error {
	given := c.Definition.given()
	for _, field := range slices.Sorted(maps.Keys(given)) {
		if given[field] && !slices.Contains(fieldsOf[field], c.Definition.Type) {
			return wrong(field, "leave it out", "a check of type %s has none; it is for %s", c.Definition.Type,
				strings.Join(fieldsOf[field], ", "))
		}
	}
	for _, field := range []string{"server-name", "skip-verify"} {
		if given[field] && c.Definition.Type != HTTPS && !c.Definition.TLS {
			return wrong(field, "ask over TLS as well: tls", "it is for checks over TLS")
		}
	}
	return nil
}

func (c *Check) parsePlace() error {
	d := &c.Definition
	if d.Port < 0 || d.Port > 65535 {
		return wrong("port", "use 1 to 65535, or leave it out for the task's first port", "%d is no port", d.Port)
	}
	switch d.From = strings.ToLower(d.From); d.From {
	case "", FromHost:
		d.From = FromHost
	case FromSandbox:
	default:
		return wrong("from", "use host or sandbox", "%.40q is not known", d.From)
	}
	if d.Address == "" {
		return nil
	}
	a, err := netip.ParseAddr(d.Address)
	if err != nil || !a.IsLoopback() || a.Zone() != "" {
		return wrong("address", "use 127.0.0.1 or ::1, or leave it out: the task's own address is asked",
			"%.60q is no loopback address", d.Address)
	}
	if d.From != FromSandbox {
		return wrong("address", "use it with from: sandbox", "on the host it is not the task's")
	}
	c.Addr = a
	return nil
}

func (c *Check) parseHTTP() error {
	d := &c.Definition
	if d.Type != HTTP && d.Type != HTTPS {
		return nil
	}
	d.Path, d.Method = cmp.Or(d.Path, "/"), strings.ToUpper(cmp.Or(d.Method, "GET"))
	if !strings.HasPrefix(d.Path, "/") || strings.ContainsFunc(d.Path, func(r rune) bool { return r <= ' ' || r >= 127 }) {
		return wrong("path", "write it as /healthz, with other characters as %XX", "%.80q is no path", d.Path)
	}
	if _, err := url.ParseRequestURI(d.Path); err != nil {
		return wrong("path", "write it as /healthz, with other characters as %XX", "%.80q cannot be asked for", d.Path)
	}
	if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "OPTIONS"}, d.Method) {
		return wrong("method", "use GET, HEAD, POST, PUT or OPTIONS", "%.40q is not known", d.Method)
	}
	if err := checkHost("host", d.Host); err != nil {
		return err
	}
	if len(d.Headers) > MaxHeaders {
		return wrong("headers", "leave some out", "%d headers, at most %d", len(d.Headers), MaxHeaders)
	}
	for _, k := range slices.Sorted(maps.Keys(d.Headers)) {
		v := d.Headers[k]
		if !httpguts.ValidHeaderFieldName(k) || !httpguts.ValidHeaderFieldValue(v) || len(k)+len(v) > MaxText {
			return wrong("headers", "use a name and a value as in a request", "%.60q is not usable", k+": "+v)
		}
		if strings.EqualFold(k, "host") {
			return wrong("headers", "use the field host", "the host has a field of its own")
		}
		if slices.ContainsFunc([]string{"connection", "content-length", "transfer-encoding"}, func(name string) bool {
			return strings.EqualFold(name, k)
		}) {
			return wrong("headers", "leave it out", "%s belongs to the connection", k)
		}
	}
	var err error
	c.Codes, err = parseCodes(d.Status)
	return err
}

// checkHost refuses what is no host name and no address: the port has a field of its own.
func checkHost(field, host string) error {
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.Zone() == "" {
		return nil
	}
	if len(host) > 255 || strings.ContainsAny(host, ":[]") || !httpguts.ValidHostHeader(host) {
		return wrong(field, "write a host name or an address, without a port", "%.80q is neither", host)
	}
	return nil
}

// parseCodes reads "200-299,401".
func parseCodes(s string) ([]Codes, error) {
	if s == "" {
		return []Codes{{200, 399}}, nil
	}
	if len(s) > 256 {
		return nil, wrong("status", "write fewer codes", "%d bytes, at most 256", len(s))
	}
	var all []Codes
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		a, err := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err != nil || err2 != nil || a < 200 || b > 599 || a > b {
			return nil, wrong("status", "write codes of 200 to 599 as 200-299,401", "%.40q is no code and no range", part)
		}
		all = append(all, Codes{a, b})
	}
	return all, nil
}

// parseTexts bounds what is sent and compared.
func (c *Check) parseTexts() error {
	d := &c.Definition
	for _, f := range []struct{ name, text string }{
		{"path", d.Path}, {"send", d.Send}, {"expect", d.Expect}, {"server-name", d.ServerName}, {"service", d.Service},
	} {
		if len(f.text) > MaxText {
			return wrong(f.name, "shorten it", "%d bytes, at most %d", len(f.text), MaxText)
		}
		if !utf8.ValidString(f.text) {
			return wrong(f.name, "write it in UTF-8", "it is not UTF-8")
		}
	}
	for _, f := range []struct{ name, text string }{{"server-name", d.ServerName}, {"service", d.Service}} {
		if strings.ContainsFunc(f.text, func(r rune) bool { return r <= ' ' || !unicode.IsPrint(r) }) {
			return wrong(f.name, "write a name", "%.80q is none", f.text)
		}
	}
	return nil
}

func (c *Check) parseCommand() error {
	d := &c.Definition
	if d.Type != Exec {
		return nil
	}
	if len(d.Command) == 0 {
		return wrong("command", "write the program by its absolute path, and its arguments", "it is missing")
	}
	if len(d.Command) > MaxCommand {
		return wrong("command", "use a script", "%d words, at most %d", len(d.Command), MaxCommand)
	}
	if !strings.HasPrefix(d.Command[0], "/") {
		return wrong("command", "write the program by its absolute path; there is no shell",
			"%.80q is no absolute path", d.Command[0])
	}
	for _, w := range d.Command {
		if strings.ContainsRune(w, 0) || !utf8.ValidString(w) {
			return wrong("command", "write it in UTF-8, without the character 0", "%.80q cannot be given to a program", w)
		}
	}
	return nil
}

// checkSize bounds the whole definition, so that eight of them fit beside a task.
func (c *Check) checkSize() error {
	b, err := json.Marshal(c.Definition)
	if err != nil {
		return wrong("type", "write it in UTF-8", "it cannot be encoded: %v", err)
	}
	if len(b) > MaxEncoded {
		return wrong("type", "shorten its texts", "the definition has %d bytes, at most %d", len(b), MaxEncoded)
	}
	return nil
}
