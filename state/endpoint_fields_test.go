package state

import (
	"net/netip"
	"reflect"
	"testing"
)

// What an endpoint can say travels: a field that AppendEndpoint leaves out comes
// back empty.
func TestEachFieldOfAnEndpointTravels(t *testing.T) {
	e := Endpoint{
		IP4: netip.MustParseAddr("10.1.0.1"), IP6: netip.MustParseAddr("fd00::1"), Aliases: []string{"www"},
		Ports:  []Port{{Name: "http", Number: 80, Proto: TCP}, {"dns", 53, 5353, UDP}, {"", 443, 8443, TCP}},
		Health: HealthFailing,
	}
	for field, value := range reflect.ValueOf(&e).Elem().Fields() {
		switch {
		case !field.IsExported() || !value.IsZero() || field.Name == "Owner":
		case value.Kind() == reflect.String:
			value.SetString("x" + string(rune('a'+field.Index[0])))
		case value.CanUint():
			value.SetUint(7)
		case value.Kind() == reflect.Bool:
			value.SetBool(true)
		}
	}
	got, err := ParseEndpoint(string(AppendEndpoint(nil, &e)))
	if err != nil {
		t.Fatal(err)
	}
	got.ID, got.Service = e.ID, e.Service // the key and the group of the record
	for field, value := range reflect.ValueOf(e).Fields() {
		if !field.IsExported() {
			continue
		}
		if back := reflect.ValueOf(got).FieldByIndex(field.Index); !reflect.DeepEqual(value.Interface(), back.Interface()) {
			t.Errorf("%s was %v and came back as %v", field.Name, value, back)
		}
		if field.Name != "Owner" && value.IsZero() {
			t.Errorf("this test does not set %s", field.Name)
		}
	}
}
