package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"meshd/mesh/control"
)

// otherWords are what people of docker, consul and kubectl write for our words.
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

// meantWord returns the word that may follow and that somebody probably meant, or "".
func meantWord(word string, known []string) string {
	word = strings.ToLower(word)
	tried := append([]string{word, strings.TrimSuffix(word, "s")}, otherWords(word)...)
	for _, t := range tried {
		if slices.Contains(known, t) {
			return t
		}
	}
	return ""
}

// meantFlag says what somebody probably meant by a flag that is not known, or "".
func meantFlag(name string) string {
	switch name {
	case "ojson", "otable", "json":
		return "write -o json, or -o table"
	case "v":
		return "write meshctl version"
	}
	return ""
}

// refused puts a refusal of meshd into the words of the flag that it is about:
// flagOf maps fields of the request to flags.
func refused(err error, flagOf map[string]string) error {
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

// notBool puts the flag package's words about a value that is neither true nor
// false into ours; nil: they are about something else.
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
