package resolver

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is no plain file of a sensible size is no resolv.conf, and meshd does not wait
// for it.
func TestReadServers(t *testing.T) {
	dir := t.TempDir()
	pipe, large, fine := filepath.Join(dir, "pipe"), filepath.Join(dir, "large"), filepath.Join(dir, "fine")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, size := range map[string]int64{large: 1 << 40, fine: 0} {
		if err := os.WriteFile(path, []byte("nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver\nnameserver x\n"),
			0o600); err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, path := range []string{pipe, large, dir, filepath.Join(dir, "none")} {
		if got, err := ReadServers(path); err == nil {
			t.Errorf("%s holds %v", path, got)
		}
	}
	got, err := ReadServers(fine)
	if err != nil || len(got) != 2 || !strings.HasPrefix(got[0].String(), "192.0.2.1:53") ||
		got[1].Addr().Zone() != "eth0" {
		t.Errorf("got %v, %v", got, err)
	}
}
