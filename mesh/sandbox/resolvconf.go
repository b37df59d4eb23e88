package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// ResolvConf is a resolv.conf that names meshd's server, with what it takes to
// undo that.
type ResolvConf struct {
	// Root is the directory that is the root of every link on the way, such as
	// /proc/1234/root. Empty means the machine's own root, where no link is
	// followed at all: a link that a container made could lead anywhere.
	Root string `json:"root,omitempty"`
	// Path is absolute, from Root.
	Path     string `json:"path"`
	Created  bool   `json:"created,omitempty"` // there was no such file
	Previous []byte `json:"previous,omitempty"`
	Written  []byte `json:"written"`
}

// maxResolvConf bounds what is read: glibc needs no more than a few lines.
const maxResolvConf = 64 << 10

// ErrChanged says that a resolv.conf is neither what meshd found nor what it
// wrote: somebody else's is left alone.
var ErrChanged = errors.New("changed by somebody else since")

// render returns the resolv.conf for a sandbox instead of the previous one. As
// Docker does, it keeps search list, sort list and options, and sets ndots:0
// unless an ndots is there, so that names with a dot are asked for as they are
// first. Only the name servers and comments go.
func render(previous []byte, name string) []byte {
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
	fmt.Fprintf(&b, "# meshd, for sandbox %s: its end puts back what was here.\nnameserver %s\n", name, ServerAddr.Addr())
	for _, line := range kept {
		b.WriteString(line + "\n")
	}
	b.WriteString("options " + strings.Join(options, " ") + "\n")
	return b.Bytes()
}
