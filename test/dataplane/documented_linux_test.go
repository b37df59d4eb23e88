package dataplane

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"meshd/test/hostkind"
)

// TestDocumented holds the table of docs/OPERATIONS.md to the behaviours and
// limits here.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/OPERATIONS.md")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the documents are not on this machine")
	}
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("| behaviour | fake | nft | IPVS |\n|---|---|---|---|\n")
	known := map[string]bool{}
	for _, b := range slices.Concat(behaviours, reported, long) {
		known[b.name] = true
		want.WriteString("| " + b.name)
		for _, world := range []string{"fake", "nft", "ipvs"} {
			want.WriteString(" | " + verdict(world, b.name))
		}
		want.WriteString(" |\n")
	}
	onKind := tableOfKinds()
	if !strings.Contains(string(text), onKind) {
		t.Errorf("docs/OPERATIONS.md does not have this table:\n%s", onKind)
	}
	if !strings.Contains(string(text), want.String()) {
		t.Errorf("docs/OPERATIONS.md does not have this table:\n%s", want.String())
	}
	for _, l := range limits {
		if !known[l.behaviour] {
			t.Errorf("limit of %s for %q, which is no behaviour", l.world, l.behaviour)
		}
		for kind := range strings.FieldsSeq(l.kinds) {
			if _, err := hostkind.Named(kind); err != nil {
				t.Error(err)
			}
		}
	}
}

// tableOfKinds has a column for each kind of host.
func tableOfKinds() string {
	var want strings.Builder
	want.WriteString("| behaviour")
	for _, k := range hostkind.All() {
		want.WriteString(" | " + k.Title)
	}
	want.WriteString(" |\n|---" + strings.Repeat("|---", len(hostkind.All())) + "|\n")
	for _, b := range onKinds() {
		want.WriteString("| " + b.name)
		for _, k := range hostkind.All() {
			want.WriteString(" | " + verdictOn(k.Name, b.name))
		}
		want.WriteString(" |\n")
	}
	return want.String()
}

// verdictOn is a cell of it: what the drivers cannot do there.
func verdictOn(kind, behaviour string) string {
	cell := "yes"
	for _, l := range limits {
		switch {
		case !l.on(kind) || l.behaviour != behaviour:
		case l.part == "":
			return "no: " + l.why
		case cell == "yes":
			cell = "but for " + strings.TrimPrefix(titles[l.world]+", "+l.part, ", ") + ": " + l.why
		default:
			cell = strings.Replace(cell, ":", ", "+l.part+":", 1)
		}
	}
	return cell
}

// titles are the drivers' names in tables.
var titles = map[string]string{"nft": "nft", "ipvs": "IPVS"}

// verdict is a cell of the table.
func verdict(world, behaviour string) string {
	cell := "yes"
	for _, l := range limits {
		switch {
		case l.world != world || l.behaviour != behaviour || l.kinds != "":
		case l.part == "":
			return "no: " + l.why
		case cell == "yes":
			cell = "but for " + l.part + ": " + l.why
		default:
			cell = strings.Replace(cell, ":", ", "+l.part+":", 1)
		}
	}
	return cell
}
