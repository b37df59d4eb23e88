package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ResolvConf is a resolv.conf that names meshd's server, with what it takes to
// undo that. Keeper makes and uses it; it is plain data, and never changed.
type ResolvConf struct {
	// Root is the directory that is the root of every link on the way:
	// /proc/PID/root. Empty means the machine's own root, where no link is
	// followed at all.
	Root string `json:"root,omitempty"`
	// Start tells the process of Root from a later one with its id; clock ticks
	// since boot.
	Start uint64 `json:"start,omitempty"`
	// Path is absolute, from Root.
	Path     string `json:"path"`
	Created  bool   `json:"created,omitempty"`  // there was no such file
	Previous []byte `json:"previous,omitempty"` // what the end of the sandbox puts back
	Found    []byte `json:"found,omitempty"`    // what an earlier meshd left there; nil if that is Previous
	Written  []byte `json:"written"`            // what the file holds for the sandbox
	File     fileID `json:"file,omitzero"`      // of the file that was read or made; zero if unknown
}

// fileID tells a file from every other one of the same boot.
type fileID struct {
	Boot string `json:"boot"` // the kernel's boot id: devices are numbered anew by each
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
}

// maxResolvConf bounds a resolv.conf, in bytes: glibc needs no more than a few
// lines. What meshd writes holds the former text, too, with two bytes more in each
// line.
const (
	maxResolvConf = 64 << 10
	maxWritten    = 4 * maxResolvConf
)

// ErrChanged says that a resolv.conf is neither what meshd found nor what it
// wrote. Such a file is left alone.
var ErrChanged = errors.New("changed by somebody else since")

// ProcessRoot names the root directory of a process, for ResolvConf.Root.
func ProcessRoot(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/root" }

// process returns the id of the process of Root, or 0 for the machine's own.
func (r *ResolvConf) process() (int, error) {
	if r.Root == "" {
		return 0, nil
	}
	text, ok := strings.CutSuffix(strings.TrimPrefix(r.Root, "/proc/"), "/root")
	pid, err := strconv.Atoi(text)
	if !ok || err != nil || pid <= 0 || r.Root != ProcessRoot(pid) {
		return 0, fmt.Errorf("%q is no root of a process", r.Root)
	}
	return pid, nil
}

// Each file that meshd writes begins with headOurs, and ends with the text that
// it replaced, as comments: so that the text can come back even if meshd's own
// record of it is lost.
const (
	headOurs    = "# meshd, for sandbox "
	headWas     = "# What was here:\n"
	headNothing = "# There was no such file.\n"
	wasLine     = "#|"  // before a line
	wasRest     = "#\\" // before a last line that did not end
)

// render returns the resolv.conf for a sandbox instead of the previous one, or
// of none. As Docker does, it keeps search list, sort list and options, and sets
// ndots:0 unless an ndots is there, so that names with a dot are asked for as
// they are first. Only the name servers go, and comments move to the end.
func render(previous []byte, created bool, name string) []byte {
	var kept, options []string
	ndots := false
	for line := range strings.Lines(string(previous)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "options":
			for _, o := range f[1:] {
				ndots = ndots || strings.HasPrefix(o, "ndots:")
				options = append(options, o)
			}
		case "search", "domain", "sortlist":
			kept = append(kept, strings.Join(f, " "))
		}
	}
	if !ndots {
		options = append(options, "ndots:0")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, headOurs+"%s: its end puts back what was here.\nnameserver %s\n", name, ServerAddr.Addr())
	for _, line := range kept {
		b.WriteString(line + "\n")
	}
	b.WriteString("options " + strings.Join(options, " ") + "\n")
	if created {
		b.WriteString(headNothing)
		return b.Bytes()
	}
	b.WriteString(headWas)
	for line := range bytes.Lines(previous) {
		if line[len(line)-1] == '\n' {
			b.WriteString(wasLine + string(line))
		} else {
			b.WriteString(wasRest + string(line) + "\n")
		}
	}
	return b.Bytes()
}

// recovered returns what was there before an earlier meshd wrote this text, which
// may have lost its record of it; ours is false for a text that no meshd wrote.
func recovered(text []byte) (previous []byte, created, ours bool) {
	if !bytes.HasPrefix(text, []byte(headOurs)) {
		return nil, false, false
	}
	if bytes.HasSuffix(text, []byte("\n"+headNothing)) {
		return nil, true, true
	}
	_, was, ok := bytes.Cut(text, []byte("\n"+headWas))
	if !ok { // the former text is lost: what was kept of it is the best there is
		return withoutOurs(text), false, true
	}
	previous = []byte{}
	for line := range bytes.Lines(was) {
		if rest, ok := bytes.CutPrefix(line, []byte(wasLine)); ok {
			previous = append(previous, rest...)
		} else if rest, ok := bytes.CutPrefix(line, []byte(wasRest)); ok {
			previous = append(previous, bytes.TrimSuffix(rest, []byte("\n"))...)
		}
	}
	return previous, false, true
}

// withoutOurs drops the first line and our name server.
func withoutOurs(text []byte) []byte {
	out := []byte{}
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		ours := len(f) == 2 && f[0] == "nameserver" && f[1] == ServerAddr.Addr().String()
		if !ours && !bytes.HasPrefix(line, []byte(headOurs)) {
			out = append(out, line...)
		}
	}
	return out
}

// keywords begin the lines of resolv.conf(5), and of its kin on other systems,
// whose files containers may hold.
var keywords = []string{"nameserver", "search", "domain", "options", "sortlist", "family", "lookup"}

// checkText refuses what is no resolv.conf. The error tells the number of a line
// and nothing of what is in it, as that may be secret.
func checkText(text []byte) error {
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if i := slices.IndexFunc(line, func(c byte) bool {
			return c < ' ' &&
				!strings.ContainsRune("\t\r\n\f\v", rune(c))
		}); i >= 0 {
			return fmt.Errorf("%w: line %d holds a control character", errNotResolvConf, n)
		}
		f := strings.Fields(string(line))
		if len(f) > 0 && f[0][0] != '#' && f[0][0] != ';' && !slices.Contains(keywords, f[0]) {
			return fmt.Errorf("%w: line %d is neither a comment nor begins with one of %s", errNotResolvConf, n,
				strings.Join(keywords, ", "))
		}
	}
	return nil
}

var errNotResolvConf = errors.New("not a resolv.conf")
