package health

import (
	"encoding/csv"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// ParseFlag reads a check as it is written in one line, in a flag or a label:
//
//	http://:8080/healthz,interval=2s,fall=2
//	https://web.example/health,port=8443,"status=200-299,401"
//	tcp://:5432,timeout=500ms     tcp://:993,tls=true,expect=* OK
//	grpc://:9000/pkg.Service      exec:/usr/bin/check-it --quick      ttl:30s
//
// The target comes first; then fields as Set reads them. A field with a comma is put in
// quotes as a whole. A host in a URL is the Host header and the name that a certificate
// must have: what is asked is the task, wherever a name may lead. The words of exec are
// separated by spaces. The error is a *FieldError; Parse has still to be called.
func ParseFlag(s string) (Definition, error) {
	r := csv.NewReader(strings.NewReader(s))
	r.LazyQuotes = false
	fields, err := r.Read()
	if err != nil || len(s) > MaxEncoded || strings.ContainsAny(s, "\n\r") {
		return Definition{}, wrong("check",
			`write it as http://:8080/healthz,interval=2s; quote a field with a comma: "status=200,401"`,
			"%.80q is no list of fields", s)
	}
	var d Definition
	if err := d.setTarget(fields[0]); err != nil {
		return Definition{}, err
	}
	for _, f := range fields[1:] {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return Definition{}, wrong("check", "write fields as interval=2s", "%.60q has no =", f)
		}
		if err := d.Set(strings.TrimSpace(key), value); err != nil {
			return Definition{}, err
		}
	}
	return d, nil
}

// FromLabels makes a definition of the labels of a container, by their names without the
// prefix: "type" and all that Set knows; or "" for what ParseFlag reads, with the others on
// top. Labels run no program: whoever may start a container would be root on the host.
func FromLabels(labels map[string]string) (Definition, error) {
	var d Definition
	if s, ok := labels[""]; ok {
		var err error
		if d, err = ParseFlag(s); err != nil {
			return Definition{}, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if key == "" {
			continue
		}
		if err := d.Set(key, labels[key]); err != nil {
			return Definition{}, err
		}
	}
	if strings.EqualFold(d.Type, Exec) || len(d.Command) > 0 {
		return Definition{}, wrong("type", "use tcp, http, https, grpc or ttl; write exec in a definition file",
			"a label runs no program on the host")
	}
	return d, nil
}

// setTarget reads the first field.
func (d *Definition) setTarget(s string) error {
	scheme, rest, ok := strings.Cut(s, ":")
	scheme = strings.ToLower(strings.TrimSpace(scheme))
	switch {
	case scheme == Docker && !ok:
		d.Type = Docker
		return nil
	case scheme == Exec && ok:
		d.Type, d.Command = Exec, strings.Fields(strings.TrimPrefix(rest, "//"))
		return nil
	case scheme == TTL && ok:
		d.Type, d.TTL = TTL, strings.TrimPrefix(rest, "//")
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || !slices.Contains([]string{TCP, HTTP, HTTPS, GRPC}, scheme) || !strings.HasPrefix(rest, "//") ||
		u.User != nil || u.Fragment != "" {
		return wrong("check", "begin with http://:8080/healthz, https://…, tcp://:5432, grpc://:9000, exec:/path or ttl:30s",
			"%.80q is no target", s)
	}
	d.Type = scheme
	if p := u.Port(); p != "" {
		if err := d.Set("port", p); err != nil {
			return err
		}
	}
	switch scheme {
	case HTTP, HTTPS:
		d.Host, d.Path = u.Hostname(), u.RequestURI()
	case GRPC:
		d.Service = strings.Trim(u.Path, "/")
		d.ServerName = u.Hostname()
	case TCP:
		d.ServerName = u.Hostname()
		if strings.Trim(u.Path, "/") != "" {
			return wrong("check", "write tcp://:5432", "%.80q has a path", s)
		}
	}
	return nil
}

// Set sets one field by its name in files, as "start-period", from a text. A header is
// set by "header", as "Name: value"; a command by its words, separated by spaces.
func (d *Definition) Set(key, value string) error {
	if text := d.textField(key); text != nil {
		*text = value
		return nil
	}
	var err error
	switch key {
	case "port":
		d.Port, err = parseNumber(value)
	case "fall":
		d.Fall, err = parseNumber(value)
	case "rise":
		d.Rise, err = parseNumber(value)
	case "tls":
		d.TLS, err = strconv.ParseBool(value)
	case "skip-verify":
		d.SkipVerify, err = strconv.ParseBool(value)
	case "header":
		name, v, ok := strings.Cut(value, ":")
		if !ok {
			return wrong(key, "write it as Name: value", "%.60q has no colon", value)
		}
		if d.Headers == nil {
			d.Headers = map[string]string{}
		}
		d.Headers[strings.TrimSpace(name)] = strings.TrimSpace(v)
	case "command":
		d.Command = strings.Fields(value)
	default:
		return unknownField(key)
	}
	if err != nil {
		return wrong(key, "use a number of 1 or more, or true and false for a switch", "%.40q is not usable", value)
	}
	return nil
}

// textField returns where a field that is a text is kept, or nil.
func (d *Definition) textField(key string) *string {
	switch key {
	case "type":
		return &d.Type
	case "name":
		return &d.Name
	case "address":
		return &d.Address
	case "from":
		return &d.From
	case "path":
		return &d.Path
	case "host":
		return &d.Host
	case "method":
		return &d.Method
	case "status":
		return &d.Status
	case "send":
		return &d.Send
	case "expect":
		return &d.Expect
	case "server-name":
		return &d.ServerName
	case "service":
		return &d.Service
	}
	return d.timeField(key)
}

func (d *Definition) timeField(key string) *string {
	switch key {
	case "ttl":
		return &d.TTL
	case "interval":
		return &d.Interval
	case "timeout":
		return &d.Timeout
	case "start-period":
		return &d.StartPeriod
	case "start-interval":
		return &d.StartInterval
	case "failing-interval":
		return &d.FailingInterval
	}
	return nil
}

// parseNumber reads a number that a person gave: zero is none.
func parseNumber(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err == nil && n < 1 {
		err = errors.New("not positive")
	}
	return n, err
}

// unknownField refuses a field and names the one that is meant, if it is only the
// separator that differs.
func unknownField(key string) error {
	fix := "use " + strings.Join(slices.Sorted(maps.Keys(fieldsOf)), ", ")
	if other := strings.ReplaceAll(key, "_", "-"); fieldsOf[other] != nil {
		fix = "use " + other
	}
	return wrong("check", fix, "a check has no field %.40q", key)
}
