package rulewatch_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshd/lb/rulewatch"
	"meshd/test/rig"
)

// TestMessagesOfStrangers: who has CAP_NET_ADMIN in a container's namespace can send
// what looks like the kernel's message to our socket there. That is no transaction,
// and does not keep the watcher reading for ever, whoever it says to be from.
func TestMessagesOfStrangers(t *testing.T) {
	t.Parallel()
	host := rig.NewTest(t, 1).Hosts()[0]
	const forged = 0x7fffff01 // a port that nobody has
	kernel, err := rulewatch.Open(host.Path(), func(port uint32) bool { return port == forged })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kernel.Close() })
	ports := listeners(t, host)
	if len(ports) != 1 {
		t.Fatalf("the sockets %v listen, want that of the watcher", ports)
	}
	forge := func(from uint32) {
		t.Helper()
		m := make([]byte, unix.NLMSG_HDRLEN+4)
		binary.NativeEndian.PutUint32(m, uint32(len(m)))
		binary.NativeEndian.PutUint16(m[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN)
		binary.NativeEndian.PutUint32(m[12:], from)
		err := host.Do(func() error {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: ports[0]})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want int) {
		t.Helper()
		heard := make(chan int, 1)
		go func() {
			n, err := kernel.Wait()
			if err != nil {
				n = -1
			}
			heard <- n
		}()
		select {
		case n := <-heard:
			if n != want {
				t.Errorf("heard %d, want %d", n, want)
			}
		case <-time.After(rig.Patience(10 * time.Second)):
			t.Fatal("Wait does not return")
		}
	}
	forge(1)
	expect(0)
	forge(forged)
	expect(0)
	forge(1)
	newWriter(t, host.Path()).commit(t, 0)
	expect(1)
}

// listeners returns the netlink ports in a namespace that are in nftables' group.
func listeners(t *testing.T, host *rig.Host) (ports []uint32) {
	t.Helper()
	err := host.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netlink")
		for line := range strings.Lines(string(text)) {
			var socket string
			var protocol, groups, port uint32
			if n, _ := fmt.Sscanf(line, "%s %d %d %x", &socket, &protocol, &port, &groups); n == 4 &&
				protocol == unix.NETLINK_NETFILTER && groups&(1<<(unix.NFNLGRP_NFTABLES-1)) != 0 {
				ports = append(ports, port)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ports
}
