package nft

import (
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"meshd/state"
)

// portsOf is a Listener that notes from which ports the ruleset may be written.
type portsOf map[uint32]bool

func (p portsOf) SetOwnPort(port uint32, _ bool) { p[port] = true }

func (portsOf) RunUnsubscribed(_ func() (uint32, error), write func() error) error { return write() }

// TestWritesFromOwnPorts: whatever a driver writes comes from a port that its
// Listener was told of, or it would be taken for somebody else's.
func TestWritesFromOwnPorts(t *testing.T) {
	r := newRig(t)
	heard, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(r.Node.Handle)})
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	if err := errors.Join(heard.SetReadBuffer(4<<20), heard.JoinGroup(unix.NFNLGRP_NFTABLES)); err != nil {
		t.Fatal(err)
	}
	own := portsOf{}
	d, err := New(Config{NetNS: r.Node.Path, Listener: own, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Probe(t.Context()); err != nil {
		t.Skipf("this kernel cannot: %v", err)
	}
	if err := d.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.program(d, table(service(vip4, 80, state.TCP, "10.1.0.2:80"), service(vip6, 0, state.TCP, "[fd01::2]:0")))
	written := 0
	for {
		if err := heard.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil { // all has been told by now
			t.Fatal(err)
		}
		all, err := heard.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			written++
			if !own[m.Header.PID] {
				t.Fatalf("message %d of type %#x comes from the port %d, of which the listener knows nothing", written,
					uint16(m.Header.Type), m.Header.PID)
			}
		}
	}
	if written == 0 {
		t.Error("nothing was written")
	}
}
