package checker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// C2: verdicts follow from monotonic times that are handed in. Whoever read the wall
// clock would take a step of it for the end of a heartbeat.
func TestNothingReadsTheClock(t *testing.T) {
	read := 0
	for _, dir := range []string{".", "../../health"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		files = slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "_test.go") })
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			read++
			for _, call := range []string{"time.Now(", "time.Since(", "time.Until("} {
				if strings.Contains(string(text), call) {
					t.Errorf("%s calls %s)", f, call)
				}
			}
		}
	}
	if read < 10 {
		t.Fatalf("only %d files were read", read)
	}
}
