package main

import (
	"context"
	"io"
	"strconv"
	"strings"
)

func sourceCommands() []command {
	return []command{{
		path: "source ls", short: "list what this node's sources of tasks look after: containers, files",
		setup: func(*flags) action { return sourceLs },
		long: `STATE is served (its tasks are registered), waiting (not yet, or not at the
moment), refused (what it asks for cannot be), ignored (it is to be left alone)
or stopped (it does not run, or is paused). PROBLEMS say why.`,
		example: "meshctl source ls",
	}}
}

func sourceLs(ctx context.Context, s *session, _ []string) error {
	units, err := s.client.Sources(ctx)
	if err != nil {
		return err
	}
	return s.show(units, func(w io.Writer) {
		var rows [][]string
		for i := range units {
			u := &units[i]
			rows = append(rows, []string{
				u.Origin + ":" + u.Unit, u.State, strconv.Itoa(u.Tasks), s.age(u.Since), strings.Join(u.Problems, "; "),
			})
		}
		table(w, "ORIGIN STATE TASKS AGE PROBLEMS", rows)
	})
}
