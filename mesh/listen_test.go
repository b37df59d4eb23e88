package mesh_test

import (
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"meshd/mesh"
	"meshd/mesh/config"
)

// A start that finds an address in use says so, and not that it is elsewhere.
func TestAddressesInUse(t *testing.T) {
	gossip, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer gossip.Close()
	dns, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	for says, c := range map[string]config.Config{
		"such as a meshd that runs already, has it":            {Bind: gossip.Addr().String()},
		"such as systemd-resolved, dnsmasq or a meshd, has it": {Bind: "127.0.0.1:0", DNS: []string{dns.LocalAddr().String()}},
	} {
		dir := t.TempDir()
		c.Node, c.LB, c.DataDir, c.Socket = "a", "none", filepath.Join(dir, "data"), filepath.Join(dir, "s")
		if _, err := mesh.New(c, "test", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}
