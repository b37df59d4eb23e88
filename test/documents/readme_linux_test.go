package documents

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"meshd/test/rig"
)

// TestReadmeByHand pastes what the README tells a newcomer to type on one machine,
// all of it at once, as it stands there.
func TestReadmeByHand(t *testing.T) {
	r := rig.NewTest(t, 1)
	demand(t, needed...)
	blocks := shellBlocks(section(t, "README.md", "## Try it by hand on one machine"))
	if len(blocks) != 9 {
		t.Fatalf("the README has %d blocks to type, this test knows 9: %q", len(blocks), blocks)
	}
	for name, type_ := range typists() {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, r.Hosts()[0].Namespace, "machine")
			said := type_(h, strings.Join(blocks, ""))
			for _, want := range []string{
				`(?m)^host3 +172\.20\.0\.3:7946 +alive `,                      // node ls
				`(?m)^10\.96\.\d+\.\d+$`,                                      // the VIP
				`(?m)^10\.1\.1\.2$`, `(?m)^10\.1\.2\.2$`, `(?m)^10\.1\.3\.2$`, // the tasks
				`(?m)^web-1$`, `(?m)^web-2$`, `(?m)^web-3$`, // who answers
				`(?m)^client3 .* ready `,           // the sandbox
				`(?m)^collabnet: equal on 3 nodes`, // diff
			} {
				if !regexp.MustCompile(want).MatchString(said) {
					t.Errorf("no line like %s", want)
				}
			}
			if t.Failed() {
				t.Logf("it said:\n%s", said)
			}
			left := h.paste(`ip netns list; ls /tmp`, "bash")
			if left.text != "" || left.status != 0 {
				t.Errorf("it leaves this behind: %s", left.text)
			}
		})
	}
}

// typists are the ways in which people put a block into a shell. Each returns what
// the shell said, and fails the test if one of the commands failed.
func typists() map[string]func(*host, string) string {
	return map[string]func(*host, string) string{
		"script": func(h *host, text string) string {
			o := h.paste(text, "bash", "-e")
			if o.status != 0 {
				h.t.Fatalf("exit code %d:\n%s", o.status, o.text)
			}
			return o.text
		},
		"paste": func(h *host, text string) string {
			o := h.paste(text, "env", `PROMPT_COMMAND=e=$?; [ $e = 0 ] || echo "PASTED: exit code $e"`, "PS1=$ ", "PS2=> ",
				"bash", "--norc", "--noprofile", "-i")
			if strings.Contains(o.text, "\nPASTED: exit code ") {
				h.t.Fatalf("a command failed:\n%s", o.text)
			}
			return o.text
		},
	}
}

// section returns a part of a document, from behind its heading to the next one of
// the level two.
func section(t *testing.T, document, heading string) string {
	t.Helper()
	text, err := os.ReadFile(repository + "/" + document)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), heading+"\n")
	if !ok {
		t.Fatal(fmt.Errorf("%s has no %q", document, heading))
	}
	part, _, _ := strings.Cut(rest, "\n## ")
	return part
}

// shellBlocks returns the sh blocks of a text, without the indent of a list.
func shellBlocks(text string) (blocks []string) {
	for _, m := range fenced.FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, strings.TrimPrefix(strings.ReplaceAll("\n"+m[2], "\n"+m[1], "\n"), "\n"))
	}
	return blocks
}

var fenced = regexp.MustCompile("(?ms)^( *)```sh\n(.*?)^ *```$")
