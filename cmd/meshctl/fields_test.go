package main

import (
	"flag"
	"reflect"
	"slices"
	"strings"
	"testing"

	"meshd/mesh/control"
)

// Each field of a request has a flag in each command that makes the request: one
// that is new has none until somebody writes it.
func TestEachFieldHasAFlag(t *testing.T) {
	task, settings := jsonFields(reflect.TypeFor[control.AddTask]()), jsonFields(reflect.TypeFor[control.SetService]())
	own := []string{"network", "name"} // a sandbox has these of its own
	for path, fields := range map[string][]string{
		"task add":       task,
		"sandbox attach": slices.DeleteFunc(slices.Clone(task), func(f string) bool { return slices.Contains(own, f) }),
		"service set":    settings,
	} {
		flags := flagsOf(t, path)
		for _, field := range fields {
			name, ok := taskFlags()[field]
			if !ok {
				name = "--" + field
			}
			if !slices.Contains(flags, name) {
				t.Errorf("%q: the field %q has no flag %s; the flags are %v", path, field, name, flags)
			}
		}
	}
}

// jsonFields are the names of t's fields in JSON, with those of embedded structs.
func jsonFields(t reflect.Type) []string {
	var names []string
	for field := range t.Fields() {
		if field.Anonymous {
			names = append(names, jsonFields(field.Type)...)
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

func flagsOf(t *testing.T, path string) []string {
	t.Helper()
	for _, c := range commands() {
		if c.path == path {
			f := newFlags(&globals{})
			c.setup(f)
			var names []string
			f.set.VisitAll(func(fl *flag.Flag) { names = append(names, dashed(fl.Name)) })
			return names
		}
	}
	t.Fatalf("there is no command %q", path)
	return nil
}
