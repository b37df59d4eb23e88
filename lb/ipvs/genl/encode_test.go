package genl

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

var (
	web = Service{
		ID: ID{Family: IPv4, Proto: 6, Port: 80, Addr: netip.MustParseAddr("10.96.0.1")}, Scheduler: "wrr",
		Netmask: 0xffffffff,
	}
	dns6 = Service{
		ID: ID{Family: IPv6, Proto: 17, Port: 53, Addr: netip.MustParseAddr("fd96::1")}, Scheduler: "mh",
		Flags: 0x19, Timeout: 300, Netmask: 128,
	}
	mark6 = Service{ID: ByMark(IPv6, 0x6d000001), Scheduler: "rr", Netmask: 128}
)

// golden are messages byte by byte, as a little-endian kernel reads them.
var golden = []struct {
	name string
	req  Request
	want string
}{
	{"new service", Request{Command: NewService, Service: web}, `
		5c000000 2000 0100 07000000 00000000  01 01 0000
		4800 0180  0600 0100 0200 0000  0600 0200 0600 0000  0800 0300 0a600001  0600 0400 0050 0000
		0800 0600 77727200  0c00 0700 00000000 ffffffff  0800 0800 00000000  0800 0900 ffffffff`},
	{"set IPv6 service with affinity", Request{Command: SetService, Service: dns6}, `
		68000000 2000 0100 07000000 00000000  02 01 0000
		5400 0180  0600 0100 0a00 0000  0600 0200 1100 0000  1400 0300 fd96000000000000 0000000000000001  0600 0400 0035 0000
		0700 0600 6d680000  0c00 0700 19000000 ffffffff  0800 0800 2c010000  0800 0900 80000000`},
	{"new service of a mark", Request{Command: NewService, Service: mark6}, `
		4c000000 2000 0100 07000000 00000000  01 01 0000
		3800 0180  0600 0100 0a00 0000  0800 0500 0100006d
		0700 0600 72720000  0c00 0700 00000000 ffffffff  0800 0800 00000000  0800 0900 80000000`},
	{"delete service", Request{Command: DelService, Service: web}, `
		38000000 2000 0100 07000000 00000000  03 01 0000
		2400 0180  0600 0100 0200 0000  0600 0200 0600 0000  0800 0300 0a600001  0600 0400 0050 0000`},
	{"new destination with a large weight", Request{
		Command: NewDestination, Service: web,
		Destination: Destination{Addr: netip.MustParseAddrPort("10.0.0.1:8080"), Weight: 70000},
	}, `
		74000000 2000 0100 07000000 00000000  05 01 0000
		2400 0180  0600 0100 0200 0000  0600 0200 0600 0000  0800 0300 0a600001  0600 0400 0050 0000
		3c00 0280  0800 0100 0a000001  0600 0200 1f90 0000  0800 0300 00000000  0800 0400 70110100
		0800 0500 00000000  0800 0600 00000000  0600 0b00 0200 0000`},
	{"delete IPv6 destination of a mark", Request{
		Command: DelDestination, Service: mark6, Destination: Destination{Addr: netip.MustParseAddrPort("[fd01::2]:0")},
	}, `
		70000000 2000 0100 07000000 00000000  07 01 0000
		1400 0180  0600 0100 0a00 0000  0800 0500 0100006d
		4800 0280  1400 0100 fd01000000000000 0000000000000002  0600 0200 0000 0000  0800 0300 00000000  0800 0400 00000000
		0800 0500 00000000  0800 0600 00000000  0600 0b00 0a00 0000`},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func littleEndian() bool { return native.Uint16([]byte{1, 0}) == 1 }

func TestGoldenRequests(t *testing.T) {
	if !littleEndian() {
		t.Skip("the golden messages are those of a little-endian machine")
	}
	for _, c := range golden {
		got := appendMessage(nil, 0x20, 0, 7, &c.req)
		if want := unhex(t, c.want); !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %x\nwant %x", c.name, got, want)
		}
	}
}

// A message begins where the one before it ends, whatever was in the buffer.
func TestMessagesAreAligned(t *testing.T) {
	var all []byte
	for i, c := range golden {
		all = appendMessage(all, 0x20, 0, uint32(i), &c.req)
	}
	for i := range golden {
		m, rest, err := nextMessage(all)
		if err != nil || m.seq != uint32(i) || m.kind != 0x20 || m.flags != flagRequest {
			t.Fatalf("message %d: %+v, %v", i, m, err)
		}
		all = rest
	}
	if len(all) != 0 {
		t.Errorf("%d bytes left", len(all))
	}
}
