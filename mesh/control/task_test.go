package control

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"meshd/state"
)

// elsewhere are the fields of an endpoint that the API has under another name, or
// that no request sets.
var elsewhere = map[string]string{
	"IP4": "IPs", "IP6": "IPs", "Owner": "Node", "Draining": "State",
}

var ofTheDaemon = []string{"Owner", "Draining", "Health"}

// What a task can have can be asked for, and what is asked for is shown.
func TestEachFieldOfATask(t *testing.T) {
	asked, want := AddTask{
		Network: "n", IPs: []string{"10.0.0.1", "fd00::1"}, Ports: []string{"http:80/tcp"}, Aliases: []string{"www"},
	}, reflect.TypeFor[state.Endpoint]()
	fill(reflect.ValueOf(&asked).Elem())
	asked.SetService = SetService{}
	p, err := asked.Parse()
	if err != nil {
		t.Fatal(err)
	}
	shown := reflect.ValueOf(FromEndpoint("n", p.Endpoint, state.Serving))
	request := reflect.ValueOf(asked)
	for field := range want.Fields() {
		if !field.IsExported() {
			continue
		}
		name := field.Name
		if other, ok := elsewhere[name]; ok {
			name = other
		}
		daemons := slices.Contains(ofTheDaemon, field.Name)
		if got := reflect.ValueOf(p.Endpoint).FieldByIndex(field.Index); !daemons && got.IsZero() {
			t.Errorf("state.Endpoint.%s cannot be asked for: AddTask.Parse leaves it empty", field.Name)
		}
		if got := shown.FieldByName(name); !got.IsValid() || got.IsZero() && !daemons {
			t.Errorf("state.Endpoint.%s is not shown: Task.%s is empty", field.Name, name)
		}
		if !daemons && !request.FieldByName(name).IsValid() {
			t.Errorf("state.Endpoint.%s cannot be asked for: AddTask has no field %s", field.Name, name)
		}
	}
}

// fill gives each simple field of v that is empty a value.
func fill(v reflect.Value) {
	for field, value := range v.Fields() {
		if field.Anonymous || !value.IsZero() {
			continue
		}
		switch value.Kind() {
		case reflect.String:
			value.SetString("x" + string(rune('a'+field.Index[0])))
		case reflect.Uint16, reflect.Uint32:
			value.SetUint(7)
		case reflect.Bool:
			value.SetBool(true)
		}
	}
}

// Each setting of a service that can be set is shown.
func TestEachSettingOfAService(t *testing.T) {
	s, err := SetService{Mode: "dnsrr", Scheduler: "sh", TTL: "7s"}.Apply(state.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	shown := reflect.ValueOf(FromService(&state.Service{Settings: s}))
	for field := range reflect.TypeFor[SetService]().Fields() {
		if got := shown.FieldByName(field.Name); !got.IsValid() || got.IsZero() {
			t.Errorf("SetService.%s is not shown: Service.%s is empty; does this test set it?", field.Name, field.Name)
		}
	}
}

// A request with embedded settings is flat, as API.md has it.
func TestRequestsAreFlat(t *testing.T) {
	text, err := json.Marshal(AddTask{
		Network: "n", Service: "s", IPs: []string{netip.IPv6Unspecified().String()},
		SetService: SetService{Mode: "vip", TTL: "7s"},
	})
	if want := `{"network":"n","service":"s","ips":["::"],"mode":"vip","ttl":"7s"}`; err != nil || string(text) != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
}
