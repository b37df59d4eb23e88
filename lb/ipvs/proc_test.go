package ipvs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// sampleTable is what Linux 6.1 says.
const sampleTable = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:0050 wlc 
  -> 0A000002:0050      Masq    0      0          0         
  -> 0A000001:1F90      Masq    70000  12         345       
UDP  0A600001:0035 rr ops 
TCP  [fd96:0000:0000:0000:0000:0000:0000:0003]:01BB mh persistent 15000 80000000
  -> [fd01:0000:0000:0000:0000:0000:0000:0001]:01BB      Masq    2      -1         0         
FWM  6D000001 wrr 
  -> 0A000003:0000      Route   1      0          0         
FWM  6D000001 none persistent 75000 FFFFFFFF
SCTP C0000201:0016 wrr 
`

type procRow struct {
	service  procService
	backends []procBackend
}

func readAll(r io.Reader, size int) (all []procRow, err error) {
	err = parseTable(r, make([]byte, size), func(s procService, b []procBackend) error {
		all = append(all, procRow{s, slices.Clone(b)})
		return nil
	})
	return all, err
}

func TestParseTable(t *testing.T) {
	at := netip.MustParseAddrPort
	want := []procRow{
		{procService{proto: 6, addr: at("10.96.0.1:80"), scheduler: "wlc"}, []procBackend{
			{addr: at("10.0.0.2:80"), forward: "Masq"},
			{addr: at("10.0.0.1:8080"), forward: "Masq", weight: 70000, active: 12, inactive: 345},
		}},
		{procService{proto: 17, addr: at("10.96.0.1:53"), scheduler: "rr", onePacket: true}, nil},
		{procService{proto: 6, addr: at("[fd96::3]:443"), scheduler: "mh", persistent: true}, []procBackend{
			{addr: at("[fd01::1]:443"), forward: "Masq", weight: 2},
		}},
		{procService{mark: 0x6d000001, scheduler: "wrr"}, []procBackend{{addr: at("10.0.0.3:0"), forward: "Route", weight: 1}}},
		{procService{mark: 0x6d000001, scheduler: "none", persistent: true}, nil},
		{procService{proto: 132, addr: at("192.0.2.1:22"), scheduler: "wrr"}, nil},
	}
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(sampleTable), "byte by byte": iotest.OneByteReader(strings.NewReader(sampleTable)),
		"with the end": iotest.DataErrReader(strings.NewReader(sampleTable)),
	} {
		got, err := readAll(r, 200)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v\n got %v\nwant %v", name, err, got, want)
		}
	}
	if got, err := readAll(strings.NewReader(""), 200); err != nil || len(got) > 0 {
		t.Errorf("empty: %v, %v", got, err)
	}
}

func TestParseTableErrors(t *testing.T) {
	for _, bad := range []string{
		"TCP 0A600001:0050 wrr",           // no end
		"TCP  0A600001:0050\n",            // no scheduler
		"TCP  0A6000:0050 wrr\n",          // short address
		"TCP  0A60000G:0050 wrr\n",        // no digit
		"FWM  00000000 wrr\n",             // no mark
		"FWM  1 wrr\n",                    // short mark
		"XYZ  0A600001:0050 wrr\n",        // protocol
		"  -> 0A000001:0050 Masq 1 0 0\n", // without a service
		"TCP  0A600001:0050 wrr\n  -> 0A000001:0050 Masq 1 0\n",
		"TCP  0A600001:0050 wrr\n  -> 0A000001:0050 Masq -1 0 0\n",
		"TCP  0A600001:0050 wrr\n  -> 0A000001:0050 Masq 99999999999 0 0\n",
		"TCP  [fd96:0000:0000:0000:0000:0000:0000-0003]:01BB mh\n",
		strings.Repeat("x", maxLine+2),
	} {
		if _, err := readAll(strings.NewReader(bad), 2*maxLine); !errors.Is(err, errProc) {
			t.Errorf("%q: %v, want an unknown format", bad, err)
		}
	}
	broken := errors.New("broken")
	if _, err := readAll(io.MultiReader(strings.NewReader(sampleTable), iotest.ErrReader(broken)), 200); !errors.Is(err,
		broken) {
		t.Errorf("%v, want the reader's error", err)
	}
	if _, err := readAll(stalled{}, 200); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("%v, want an end", err)
	}
	stop := errors.New("stop")
	err := parseTable(strings.NewReader(sampleTable), make([]byte, 200),
		func(procService, []procBackend) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("%v, want each's error", err)
	}
}

type stalled struct{}

func (stalled) Read([]byte) (int, error) { return 0, nil }

// What is understood is understood in pieces of any size, too, and is possible.
func FuzzParseTable(f *testing.F) {
	f.Add([]byte(sampleTable))
	for line := range strings.Lines(sampleTable) {
		f.Add([]byte(line))
	}
	f.Add([]byte("0A000001:0050      Masq    123456 12345      0         \n0A000001:0050      Masq    1234567 1 2\n"))
	f.Add([]byte("TCP  0A600001:0050 wrr \n  -> 0A000001:0050      Tunnel  2147483647 2147483647 2147483648\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		whole, err := readAll(bytes.NewReader(text), maxLine+len(text)+1)
		pieces, err2 := readAll(iotest.OneByteReader(bytes.NewReader(text)), maxLine+len(text)+1)
		if (err == nil) != (err2 == nil) || fmt.Sprint(whole) != fmt.Sprint(pieces) {
			t.Fatalf("whole: %v %v\npieces: %v %v", whole, err, pieces, err2)
		}
		for line := range bytes.Lines(text) {
			fast, ok := parseColumns(bytes.TrimSuffix(line, []byte("\n")))
			if slow, ok2 := parseBackend(bytes.TrimSuffix(line, []byte("\n"))); ok && (!ok2 || fast != slow) {
				t.Fatalf("%q: %+v by columns, %+v by words", line, fast, slow)
			}
		}
		for _, r := range whole {
			if (r.service.mark != 0) == (r.service.proto != 0) || r.service.addr.IsValid() != (r.service.proto != 0) ||
				r.service.scheduler == "" {
				t.Fatalf("impossible service %+v", r.service)
			}
			for _, b := range r.backends {
				if !b.addr.IsValid() || b.active < 0 || b.inactive < 0 || b.forward == "" {
					t.Fatalf("impossible backend %+v", b)
				}
			}
		}
	})
}

func BenchmarkParseTable(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "TCP  0A60%04X:0050 wrr \n", i)
		for j := range 10 {
			fmt.Fprintf(&text, "  -> 0A01%04X:0050      %-7s %-6d %-10d %-10d\n", 10*i+j, "Masq", 1, 0, 0)
		}
	}
	buf := make([]byte, tableBuffer)
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if err := parseTable(strings.NewReader(text.String()), buf,
			func(procService, []procBackend) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
