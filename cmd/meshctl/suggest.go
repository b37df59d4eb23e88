package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"meshd/mesh/control"
)

// otherWords returns the words of meshctl for what users of docker, consul and
// kubectl write.
func otherWords(word string) []string {
	switch word {
	case "list", "ps", "get", "show":
		return []string{"ls"}
	case "delete", "del", "remove", "destroy", "unregister", "deregister":
		return []string{"rm", "remove", "detach"}
	case "rm":
		return []string{"remove", "detach"}
	case "create", "register", "run", "start", "new":
		return []string{"create", "add", "install", "attach"}
	case "add":
		return []string{"create", "install", "attach"}
	case "describe", "info":
		return []string{"inspect", "status"}
	case "update", "config", "edit":
		return []string{"set"}
	case "svc":
		return []string{"service"}
	case "net":
		return []string{"network"}
	case "members":
		return []string{"node"}
	case "events", "monitor":
		return []string{"watch"}
	case "check":
		return []string{"verify", "doctor"}
	}
	return nil
}

// suggestWord returns the known word that the user probably wanted, or "".
func suggestWord(word string, known []string) string {
	word = strings.ToLower(word)
	tried := append([]string{word, strings.TrimSuffix(word, "s")}, otherWords(word)...)
	for _, t := range tried {
		if slices.Contains(known, t) {
			return t
		}
	}
	return ""
}

// suggestFlag says what to write instead of an unknown flag, or "".
func suggestFlag(name string) string {
	switch name {
	case "ojson", "otable", "json":
		return "write -o json, or -o table"
	case "v":
		return "write meshctl version"
	}
	return ""
}

// renameField gives a refusal of meshd the name of the flag that it is about, in
// place of the field of the request. flagOf maps fields to flags.
func renameField(err error, flagOf map[string]string) error {
	e, ok := errors.AsType[*control.Error](err)
	if !ok {
		return err
	}
	field, rest, found := strings.Cut(e.Message, ": ")
	name, known := flagOf[field]
	if !found || !known {
		return err
	}
	said := *e
	said.Message = name + ": " + rest
	return &said
}

// notBool returns our error for the flag package's message about a value that is
// neither true nor false, or nil for any other message.
func notBool(message string) error {
	rest, ok := strings.CutPrefix(message, "invalid boolean value ")
	if !ok {
		return nil
	}
	value, after, _ := strings.Cut(rest, " for -")
	name, _, _ := strings.Cut(after, ":")
	return &usageError{
		fmt.Sprintf("%s: %s is neither true nor false", dashed(name), value),
		"give the flag alone, or leave it out",
	}
}
