package documents

import (
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// how says how a command of a document is run. The zero value: as it stands, on
// host1, and its exit code is 0.
type how struct {
	left   string            // why it is not run; nothing else counts then
	needs  string            // a program that may be missing: then it is skipped
	fill   map[string]string // what a reader writes for a placeholder of the document
	as     string            // what is typed instead, with %s for it, where the command alone never ends
	before string            // typed before, to have what the command is about
	after  string            // typed after it, to have the hosts as they were
	exit   int
	shows  string   // a regular expression for its output
	keys   []string // of the JSON object that it shows
	last   bool     // it ends what the others need
	on     int      // the index of the host
}

// fills are the placeholders of all documents. OLD and PID are filled while it runs.
var fills = map[string]string{
	"--network N": "--network collabnet", "resolve NAME": "resolve web", "sandbox inspect NAME": "sandbox inspect web-1",
	"sandbox detach NAME": "sandbox detach web-1", "ID": "extra", "ADDR": "192.0.2.12", "TASKIP": "10.1.1.7",
	"ps S ":  "ps web ",
	"BRIDGE": "tasks", "PORT": "vweb", "FILE": "/root/made.key", "--alive N": "--alive 3",
}

// fill puts what a reader would write in the place of placeholders.
func fill(text string, own map[string]string) string {
	for _, all := range []map[string]string{own, fills} {
		for _, placeholder := range slices.Sorted(maps.Keys(all)) {
			text = placeholderAt(placeholder).ReplaceAllLiteralString(text, all[placeholder])
		}
	}
	return text
}

// placeholderAt finds a placeholder where it is a word of its own.
func placeholderAt(placeholder string) *regexp.Regexp {
	edge := func(at string) string {
		if regexp.MustCompile(`\w`).MatchString(at) {
			return `\b`
		}
		return ""
	}
	return regexp.MustCompile(edge(placeholder[:1]) + regexp.QuoteMeta(placeholder) +
		edge(placeholder[len(placeholder)-1:]))
}

// verb is one of meshctl's, with the synopsis of its help.
type verb struct{ name, synopsis string }

// verbs are all of them, in the order of the help.
func verbs(t *testing.T, h *host) (all []verb) {
	t.Helper()
	_, list, _ := strings.Cut(h.must("meshctl --help"), "Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		synopsis, _, _ := strings.Cut(strings.TrimSpace(line), "   ")
		var words []string
		for w := range strings.FieldsSeq(synopsis) {
			if w == strings.ToUpper(w) {
				break
			}
			words = append(words, w)
		}
		all = append(all, verb{strings.Join(words, " "), strings.TrimSpace(synopsis)})
	}
	if len(all) < 30 {
		t.Fatalf("meshctl --help names %d verbs only: %v", len(all), all)
	}
	return all
}

// needFlags are the verbs that cannot be typed without flags.
var needFlags = []string{"task add", "sandbox attach"}

// named returns what is typed for a command that a text only names, without what it
// needs: its help must know it, with the flag that is named.
func named(text string, verbs []verb) (string, bool) {
	rest, ok := strings.CutPrefix(text, "meshctl ")
	if !ok {
		return "meshd cleanup --help", text == "meshd cleanup"
	}
	rest, dots := strings.CutSuffix(rest, " …")
	name, flag, hasFlag := strings.Cut(rest, " --")
	at := slices.IndexFunc(verbs, func(v verb) bool { return v.name == name })
	group := slices.ContainsFunc(verbs, func(v verb) bool { return strings.HasPrefix(v.name, name+" ") })
	switch {
	case group, at >= 0 && !hasFlag && (dots || verbs[at].synopsis != name || slices.Contains(needFlags, name)):
		return "meshctl " + name + " --help", true
	case at >= 0 && hasFlag && slices.Contains([]string{"pid", "out", "ttl"}, flag):
		return "meshctl " + name + " --help | grep -e --" + flag, true
	}
	return "", false
}

func names(verbs []verb) (names []string) {
	for _, v := range verbs {
		names = append(names, v.name)
	}
	return names
}

// run runs the commands of a document, in order, those that are last at the end,
// and checks that the table speaks of nothing else.
func (m machines) run(t *testing.T, commands []command, table map[string]how, dir string) {
	t.Helper()
	known := verbs(t, m[0])
	used := map[string]bool{}
	for _, last := range []bool{false, true} {
		for _, c := range commands {
			key := strings.TrimSpace(c.text)
			key, _, _ = strings.Cut(key, "\n")
			h, listed := table[key]
			used[key] = used[key] || listed
			if h.last != last {
				continue
			}
			t.Run(c.document+": "+key, func(t *testing.T) { m.runOne(t, c, h, known, dir) })
		}
	}
	for key := range table {
		if !used[key] {
			t.Errorf("no document shows %q any more: remove it from the table", key)
		}
	}
}

func (m machines) runOne(t *testing.T, c command, h how, known []verb, dir string) {
	if h.left != "" {
		t.Logf("left out: %s", h.left)
		return
	}
	if h.needs != "" {
		if _, err := exec.LookPath(h.needs); err != nil {
			t.Skipf("%s is not installed", h.needs)
		}
	}
	on := *m[h.on]
	on.t, on.dir = t, dir
	if h.before != "" {
		on.must(h.before)
	}
	own := map[string]string{}
	for placeholder, value := range h.fill {
		if script, ok := strings.CutPrefix(value, "$ "); ok {
			value = strings.TrimSpace(on.must(script))
		}
		own[placeholder] = value
	}
	text := fill(c.text, own)
	if as, ok := named(c.text, known); ok {
		text = as
	}
	if strings.HasPrefix(text, "make ") {
		on.dir = working(t)
	}
	if h.as != "" {
		text = strings.ReplaceAll(h.as, "%s", strings.TrimSpace(text))
	}
	o := on.paste(text, "bash", "-e")
	if o.status != h.exit || !regexp.MustCompile(h.shows).MatchString(o.text) {
		t.Errorf("exit code %d, want %d, and something like %q (what cannot be typed on an empty host needs an entry in "+
			"the test's table):\n%s\n%s", o.status, h.exit, h.shows, text, o.text)
	}
	for _, key := range h.keys {
		if !strings.Contains(o.text, `"`+key+`":`) {
			t.Errorf("the reply has no %q:\n%s", key, o.text)
		}
	}
	if h.after != "" {
		on.must(h.after)
	}
}

// container is a script that makes a container called $1 with the address $2 on a
// host, as the one of docs/OPERATIONS.md.
func container(name, address string) string {
	gateway := address[:strings.LastIndex(address, ".")] + ".1"
	return fmt.Sprintf(`
ip netns add %[1]s && ip link add v%[1]s type veth peer name eth0 netns %[1]s
ip link set v%[1]s master tasks up && ip -n %[1]s link set lo up && ip -n %[1]s link set eth0 up
ip -n %[1]s address add %[2]s/24 dev eth0 && ip -n %[1]s route add default via %[3]s
mkdir -p /etc/netns/%[1]s
`, name, address, gateway)
}

// process is a script that starts a process in the container called name, writes
// its id to /root/pid, and waits until it is there.
func process(name string) string {
	return "\ncp /etc/resolv.conf /etc/netns/" + name + "/\nip netns exec " + name + ` sleep 3600 >/dev/null 2>&1 &
echo $! > /root/pid
until [ "$(cat /proc/$!/comm)" = sleep ]; do :; done
`
}

// backend is a script that serves as a task of a service from a container.
func backend(service, address string) string {
	return container(service, address) + fmt.Sprintf(`
ip netns exec %[1]s bin/demo serve-task %[1]s %[2]s:80 >/dev/null 2>&1 &
meshctl task add --network collabnet --service %[1]s --ip %[2]s --port 80 --wait
`, service, address)
}
