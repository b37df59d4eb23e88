package main

import (
	"encoding/json"
	"fmt"
	"io"

	"meshd/mesh"
)

const doctorUsage = `meshd doctor: say what of this host would be against a meshd, before it is started

  meshd doctor [--config FILE] [FLAGS OF meshd]

It changes nothing, and prints JSON: "meshctl doctor" asks the running meshd or, if
none runs, this, and prints a table.

Exit codes: 0 nothing was found, 1 something was, 2 usage.

`

// doctor runs "meshd doctor" and returns the exit code.
func doctor(args []string, stdout, stderr io.Writer) int {
	for _, a := range args {
		if a == "-h" || a == "-help" || a == "--help" {
			fmt.Fprint(stdout, doctorUsage)
			return 0
		}
	}
	cfg, code := configure(args, stdout, stderr)
	if code >= 0 {
		return code
	}
	d := mesh.Examine(cfg)
	out := json.NewEncoder(stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	if err := out.Encode(d); err != nil {
		fmt.Fprintln(stderr, "meshd doctor:", err)
		return 1
	}
	if len(d.Findings) > 0 {
		return 1
	}
	return 0
}
