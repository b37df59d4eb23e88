package documents

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// command is something to type that a document shows.
type command struct {
	document string
	text     string // a line, or the lines of a block
	block    bool
}

// programs are the first words by which a command is known as one.
var programs = []string{
	"make", "meshctl", "meshd", "bin/meshctl", "bin/meshd", "bin/vm", "systemctl", "dig", "ip", "curl", "nft", "iptables",
	"ipvsadm", "go", "sysctl",
	"modprobe", "bridge", ".ci/run", "kill", "conntrack", "cat", "ufw", "apt-get", "docker", "firewall-cmd", "sed", "ssh",
	"scp", "rm", "mkdir", "install",
	"hostname", "jq", "source", "examples/three-hosts/network", "sudo", "journalctl", "tcpdump", "ss", "ping", "mount",
	"unshare",
}

var (
	fence    = regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```$")
	indented = regexp.MustCompile(`(?m)(?:\A|\n\n)((?:    .*\n)+)`)
	wrapped  = regexp.MustCompile(`\n *\b`) // a line that goes on: not of a list, nor of a table
	inline   = regexp.MustCompile("`([^`\n]+)`")
)

// commandsOf finds what a document shows to type: fenced blocks of sh, indented
// blocks that begin with a program, and the same between single quotes. The verbs
// are those of meshctl, which texts name without it.
func commandsOf(document, text string, verbs []string) (all []command) {
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[1] == "sh" {
			all = append(all, command{document, m[2], true})
		}
	}
	text = fence.ReplaceAllString(text, "")
	for _, m := range indented.FindAllStringSubmatch(strings.ReplaceAll(text, "\n\n", "\n\n\n"), -1) {
		block := strings.ReplaceAll("\n"+m[1], "\n    ", "\n")[1:]
		if slices.Contains(programs, firstWord(block)) {
			all = append(all, command{document, block, true})
		}
	}
	text = wrapped.ReplaceAllString(regexp.MustCompile(`(?m)^    .*\n`).ReplaceAllString(text, ""), " ")
	for _, m := range inline.FindAllStringSubmatch(text, -1) {
		if line := typed(m[1], verbs); line != "" && !slices.Contains(all, command{document, line, false}) {
			all = append(all, command{document, line, false})
		}
	}
	return all
}

// typed returns what is to be typed for a code span; empty: nothing, it is no
// command, or only a program's name.
func typed(span string, verbs []string) string {
	words := strings.Fields(span)
	switch {
	case len(words) == 0:
		return ""
	case len(words) >= 2 && slices.Contains(verbs, words[0]+" "+words[1]):
		return "meshctl " + span
	case len(words) == 1 && !strings.Contains(span, "/"):
		return ""
	case len(words) > 2 && words[0] == "ip" && slices.Contains([]string{"daddr", "saddr", "protocol"}, words[1]):
		return "" // a part of a rule of nftables
	case slices.Contains(programs, words[0]):
		return span
	}
	return ""
}

func firstWord(s string) string {
	if words := strings.Fields(s); len(words) > 0 {
		return words[0]
	}
	return ""
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(repository + "/" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// repository is where the commands that need it are typed, from this package.
const repository = "../.."

// What is a command, and what is not.
func TestCommandsOf(t *testing.T) {
	const text = "# A\n\n    make build   # x\n    make test\n\ntext `meshctl status` and `status`, `dig`, `task rm " +
		"ID`, `lb: nft`, `ip daddr 10.96.0.0/16 accept`\n\n" +
		"    {\"json\": 1}\n\n   ```sh\n   meshctl x\n   ```\n\n```text\nmeshctl y\n```\n`meshctl status` again, " +
		"`.ci/run` and `nft\nflush ruleset`\n\n    curl z\n\n    curl zz\n"
	want := []command{
		{"d", "   meshctl x\n", true},
		{"d", "make build   # x\nmake test\n", true},
		{"d", "curl z\n", true},
		{"d", "curl zz\n", true},
		{"d", "meshctl status", false},
		{"d", "meshctl task rm ID", false},
		{"d", ".ci/run", false},
		{"d", "nft flush ruleset", false},
	}
	if got := commandsOf("d", text, []string{"task rm"}); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
