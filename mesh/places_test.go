package mesh_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"meshd/mesh/config"
	"meshd/mesh/control"
)

// A service has one task at an address and port of a node: a second one would be
// the same program twice. Several services may share an address, and tasks of one
// that declare other ports.
func TestOneTaskAtAPlace(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	a.network("net", "10.96.0.0/16")
	a.network("other", "10.97.0.0/16")
	add := func(network, service, ip string, ports ...string) (string, error) {
		r, err := a.AddTask(t.Context(), control.AddTask{
			Network: network, Service: service, IPs: strings.Split(ip, ","),
			Ports: ports,
		})
		return r.Task.ID, err
	}
	first, err := add("net", "web", "10.1.0.1", "80", "443")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		network, service, ip string
		ports                []string
		refused              bool
	}{
		{"net", "web", "10.1.0.1", []string{"80", "443"}, true},
		{"net", "web", "10.1.0.1", []string{"http:80"}, true},
		{"net", "web", "10.1.0.1,fd00::1", []string{"443"}, true},
		{"net", "WEB", "10.1.0.1", nil, true},
		{"net", "web", "10.1.0.1", []string{"80/udp"}, false},
		{"net", "web", "10.1.0.1", []string{"81"}, false},
		{"net", "web", "10.1.0.2", []string{"80"}, false},
		{"net", "web", "10.1.0.1", []string{"90:80"}, true},
		{"net", "web", "10.1.0.1", []string{"http:90:443/tcp"}, true},
		{"net", "web", "10.1.0.1", []string{"80:8001"}, false},
		{"net", "web", "10.1.0.1", []string{"http:80:8002"}, false},
		{"net", "web", "10.1.0.1", []string{"80:8003/udp", "80:8003/tcp"}, false},
		{"net", "db", "10.1.0.1", []string{"80"}, false},
		{"other", "web", "10.1.0.1", []string{"80"}, false},
	} {
		_, err := add(x.network, x.service, x.ip, x.ports...)
		switch e, isError := errors.AsType[*control.Error](err); {
		case x.refused && (!isError || e.Code != control.CodeConflict || !strings.Contains(e.Hint, "meshctl task rm "+first)):
			t.Errorf("%+v: %v", x, err)
		case !x.refused && err != nil:
			t.Errorf("%+v: %v", x, err)
		}
	}
	if _, err := a.DrainTask(t.Context(), control.TaskRef{ID: first}); err != nil {
		t.Fatal(err)
	}
	second, err := add("net", "web", "10.1.0.1", "80")
	if err != nil {
		t.Errorf("beside one that drains: %v", err)
	}
	for _, id := range []string{first, second} {
		if _, err := a.RemoveTask(t.Context(), control.TaskRef{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := add("net", "web", "10.1.0.1", "80"); err != nil {
		t.Errorf("after both are gone: %v", err)
	}
}

// Of many that ask for one place at the same moment, one gets it.
func TestOneTaskAtAPlaceAtOnce(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	a.network("net", "10.96.0.0/16")
	var clients sync.WaitGroup
	errs := make([]error, 32)
	for i := range errs {
		clients.Go(func() {
			_, errs[i] = a.AddTask(t.Context(), control.AddTask{
				Network: "net", Service: "web", IPs: []string{"10.1.0.1"},
				Ports: []string{"80"},
			})
		})
	}
	clients.Wait()
	done := 0
	for _, err := range errs {
		if e, isError := errors.AsType[*control.Error](err); err == nil {
			done++
		} else if !isError || e.Code != control.CodeConflict {
			t.Error(err)
		}
	}
	if ts, err := a.Tasks(t.Context(), control.TaskFilter{}); done != 1 || len(ts) != 1 {
		t.Error(fmt.Sprint(done, " were told that they have it; tasks: ", ts, " ", err))
	}
}
