package state

import (
	"errors"
	"net/netip"
	"testing"
)

func TestFieldErrors(t *testing.T) {
	at := netip.MustParseAddr("10.1.0.7")
	good := Endpoint{ID: "t1", Service: "web", IP4: at}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, spoil := range map[string]func(e *Endpoint){
		"id":       func(e *Endpoint) { e.ID = "a.b" },
		"service":  func(e *Endpoint) { e.Service = "tasks" },
		"name":     func(e *Endpoint) { e.Name = "github.com" },
		"hostname": func(e *Endpoint) { e.Hostname = "-x" },
		"aliases":  func(e *Endpoint) { e.Aliases = []string{"ok", "not ok"} },
		"ports":    func(e *Endpoint) { e.Ports = []Port{{Number: 0, Proto: TCP}} },
		"ips":      func(e *Endpoint) { e.IP4 = netip.Addr{} },
	} {
		e := good
		spoil(&e)
		var f *FieldError
		if err := e.Validate(); !errors.As(err, &f) || f.Field != field || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", field, err)
		}
	}
	var v *ValueError
	d := NetworkDef{Name: "net", Subnet6: netip.MustParsePrefix("fd00::/80")}
	var f *FieldError
	if err := d.Validate(); !errors.As(err, &f) || f.Field != "subnet6" || !errors.As(err, &v) || v.Hint == "" {
		t.Errorf("a pool: %v", err)
	}
}
