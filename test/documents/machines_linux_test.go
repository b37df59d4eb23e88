package documents

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"meshd/test/rig"
)

// machines are the three of the README, with the names and addresses that it
// gives them.
type machines []*host

// newMachines makes them, connected, each with a bridge for containers and nothing
// else.
func newMachines(t *testing.T) machines {
	r := rig.NewTest(t, 3)
	demand(t, needed...)
	var all machines
	for i, place := range r.Hosts() {
		h := newHost(t, place.Namespace, fmt.Sprintf("host%d", i+1))
		h.must(strings.ReplaceAll(`
ip address flush dev eth0 scope global
ip address flush dev tasks
ip address add 192.0.2.1I/24 dev eth0
ip address add 10.1.I.1/24 dev tasks
for f in /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding; do if [ -e $f ]; then echo 0 > $f; fi; done
`, "I", strconv.Itoa(i+1)))
		file := filepath.Join(rig.Dir(), "stand-ins", "machines", fmt.Sprintf("192.0.2.1%d", i+1))
		if err := os.WriteFile(file, []byte(strconv.Itoa(h.init.PID)), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the service's log on %s:\n%s", h.name, h.paste("tail -20 /run/log/meshd", "bash").text)
			}
			h.paste("systemctl stop meshd", "bash")
		})
		all = append(all, h)
	}
	return all
}

// must types a text that is no document's, and returns what was said.
func (h *host) must(text string) string {
	h.t.Helper()
	return typists()["script"](h, text)
}

// setUp pastes the section of the README about three machines into their shells, as
// its first lines say where.
func (m machines) setUp(t *testing.T, type_ func(*host, string) string) {
	t.Helper()
	const every = "# on each host"
	blocks := shellBlocks(section(t, "README.md", "## Three real machines"))
	if len(blocks) != 4 {
		t.Fatalf("the README has %d blocks to type on three machines, this test knows 4: %q", len(blocks), blocks)
	}
	for _, block := range blocks {
		where, _, _ := strings.Cut(block, "\n")
		switch {
		case strings.HasPrefix(where, every):
			for i, h := range m {
				type_(h, strings.Replace(block, "\ni=1 ", fmt.Sprintf("\ni=%d ", i+1), 1))
			}
		case where == "# on host1":
			type_(m[0], block)
		default:
			t.Fatalf("the first line of a block does not say where to type it: %q", where)
		}
	}
}

// confirm checks what the unit promises of its process.
const confirm = `
pid=$(cat /run/stand-in/meshd)
grep -q 'NoNewPrivs:.*1' /proc/$pid/status
grep -q 'CapBnd:.*fffff' /proc/$pid/status && exit 1
for f in /etc/meshd/x /usr/local/bin/x /root/x /var/lib/x; do ! nsenter --target $pid --mount touch $f 2>/dev/null; done
touch /tmp/seen
[ -z "$(nsenter --target $pid --mount ls -A /tmp)" ]
[ -z "$(find /var/lib/meshd -type f ! -perm 600)" ] && [ "$(find /var/lib/meshd -type f)" ]
`

// TestUnitVerified has systemd itself read the shipped unit, where it is installed.
func TestUnitVerified(t *testing.T) {
	r := rig.NewTest(t, 1)
	demand(t, append(needed, "systemd-analyze")...)
	h := newHost(t, r.Hosts()[0].Namespace, "host1")
	said := h.must("make -s install\nsystemd-analyze verify --man=no /etc/systemd/system/meshd.service")
	if strings.Contains(said, "meshd.service") {
		t.Errorf("systemd says of the unit: %s", said)
	}
	bad := h.must("echo Nonsense=1 >> /etc/systemd/system/meshd.service\nsystemd-analyze verify --man=no " +
		"/etc/systemd/system/meshd.service")
	if !strings.Contains(bad, "Nonsense") {
		t.Errorf("systemd-analyze finds nothing wrong with nonsense: %s", bad)
	}
}

// TestThreeMachines sets up three machines as the README says, with the shipped
// unit and configuration, and looks at what came of it.
func TestThreeMachines(t *testing.T) {
	for name, type_ := range typists() {
		t.Run(name, func(t *testing.T) {
			m := newMachines(t)
			m.setUp(t, type_)
			for _, h := range m {
				if said := h.must("meshctl network ls; meshctl diff --wait"); !strings.Contains(said, "collabnet") {
					t.Errorf("%s does not know the network:\n%s", h.name, said)
				}
				h.must(confirm)
				if log := h.must("cat /run/log/meshd"); strings.Contains(log, "stays writable") || strings.Contains(log, "ended") {
					t.Errorf("%s: the service's log:\n%s", h.name, log)
				}
			}
		})
	}
}
