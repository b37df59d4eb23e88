package genl

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// answer returns the message in which the kernel tells of a service.
func answer(s *Service, seq uint32, stats ...byte) []byte {
	b := appendHeader(nil, 0x20, flagMulti, seq, NewService)
	start := len(b)
	b = appendService(b, s, true)
	b = append(b, stats...)
	native.PutUint16(b[start:], uint16(len(b)-start))
	native.PutUint32(b, uint32(len(b)))
	return b
}

func counters(kind uint16, wide bool, values ...uint64) []byte {
	b := attr(nil, kind, 0)
	for i, v := range values {
		if wide || i >= 3 {
			b = native.AppendUint64(attr(b, uint16(1+i), 8), v)
		} else {
			b = appendU32(b, uint16(1+i), uint32(v))
		}
	}
	b = appendU32(b, 6, 99) // a rate
	native.PutUint16(b, uint16(len(b)))
	return b
}

func TestParseService(t *testing.T) {
	want := Stats{Connections: 1, PacketsIn: 2, PacketsOut: 3, BytesIn: 1 << 40, BytesOut: 5}
	small := counters(svcStats, false, 1, 2, 3, 1<<40, 5)
	wide := counters(svcStats64, true, 1<<33, 2, 3, 1<<40, 5)
	wantWide := want
	wantWide.Connections = 1 << 33
	for _, s := range []Service{web, dns6, mark6} {
		for _, c := range []struct {
			raw  []byte
			want Stats
		}{
			{nil, Stats{}},
			{small, want},
			{append(append([]byte{}, small...), wide...), wantWide},
			{append(append([]byte{}, wide...), small...), wantWide},
		} {
			m, rest, err := nextMessage(answer(&s, 1, c.raw...))
			if err != nil || len(rest) > 0 {
				t.Fatal(err, len(rest))
			}
			got, err := parseService(&m)
			full := s
			full.Stats = c.want
			if err != nil || got != full {
				t.Errorf("%+v, %v\nwant %+v", got, err, full)
			}
		}
	}
}

// destAnswer returns the message in which the kernel tells of a destination.
func destAnswer(d *DestinationState, stats ...byte) []byte {
	b := appendHeader(nil, 0x20, flagMulti, 1, NewDestination)
	start := len(b)
	b = appendDestination(b, &d.Destination)
	b = appendU32(appendU32(b, destActive, d.Active), destInact, d.Inactive)
	b = append(b, stats...)
	native.PutUint16(b[start:], uint16(len(b)-start))
	native.PutUint32(b, uint32(len(b)))
	return b
}

func TestParseDestination(t *testing.T) {
	want := DestinationState{
		Destination: Destination{Addr: netip.MustParseAddrPort("[fd01::1]:80"), Weight: 70000, Forward: 3}, Active: 5,
		Inactive: 6,
		Stats:    Stats{Connections: 1 << 33, BytesIn: 4},
	}
	raw := append(counters(svcStats, false, 1, 2), counters(svcStats64, true, 1<<33, 0, 0, 4)...)
	m, _, err := nextMessage(destAnswer(&want, raw...))
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range []Family{IPv4, IPv6} {
		if got, err := parseDestination(&m, family); err != nil || got != want {
			t.Errorf("%+v, %v\nwant %+v", got, err, want)
		}
	}
	old := appendHeader(nil, 0x20, flagMulti, 1, NewDestination) // before Linux 3.18: without a family
	old = attr(old, attrDestination, 16)
	old = appendPort(appendBytes(old, destAddr, []byte{10, 0, 0, 1}), destPort, 80)
	native.PutUint32(old, uint32(len(old)))
	if m, _, err = nextMessage(old); err != nil {
		t.Fatal(err)
	}
	if got, err := parseDestination(&m, IPv4); err != nil || got.Addr != netip.MustParseAddrPort("10.0.0.1:80") {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseDestination(&m, IPv6); !errors.Is(err, ErrMalformed) {
		t.Errorf("%v, want malformed", err)
	}
}

func TestMalformed(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty service":      answer(&Service{}, 1)[:headerLen+genHeaderLen],
		"family 0":           answer(&Service{}, 1),
		"short message":      {1, 0, 0, 0},
		"length beyond end":  answer(&web, 1)[:40],
		"length of a header": {15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"short counter":      answer(&web, 1, append(attr(nil, svcStats64, 5), 5, 0, 1, 0, 9, 0, 0, 0)...),
		"attribute too long": answer(&web, 1, 0xff, 0, 1, 0),
		"no generic header":  append(native.AppendUint32(nil, headerLen), make([]byte, 12)...),
	} {
		m, _, err := nextMessage(b)
		if err == nil {
			_, err = parseService(&m)
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want malformed", name, err)
		}
	}
}

func TestErrno(t *testing.T) {
	for _, c := range []struct {
		kind uint16
		data []byte
		want int
		ok   bool
	}{
		{typeError, native.AppendUint32(nil, 0), 0, true},
		{typeError, native.AppendUint32(nil, ^uint32(16)), 17, true},
		{typeError, native.AppendUint32(nil, 17), 0, false},
		{typeError, native.AppendUint32(nil, 1<<31), 0, false},
		{typeError, []byte{1, 2}, 0, false},
		{typeDone, nil, 0, true},
		{typeDone, native.AppendUint32(nil, ^uint32(3)), 4, true},
	} {
		m := message{kind: c.kind, data: c.data}
		got, err := m.errno()
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%d %x: %d, %v", c.kind, c.data, got, err)
		}
	}
}

// What is decoded must be one of the kernel's services or an error: never a
// panic, never an endless loop.
func FuzzMessages(f *testing.F) {
	for _, s := range []Service{web, dns6, mark6} {
		f.Add(answer(&s, 1, counters(svcStats64, true, 1, 2, 3)...))
		f.Add(append(answer(&s, 1), answer(&web, 2)...))
	}
	f.Add(destAnswer(&DestinationState{Destination: golden[4].req.Destination}, counters(svcStats64, true, 1, 2, 3)...))
	f.Add(append(native.AppendUint32(nil, 20), 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff))
	f.Add(append(native.AppendUint32(nil, 20), 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80))
	f.Add([]byte(strings.Repeat("\x10\x00\x00\x00", 16)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for steps := 0; len(b) > 0; steps++ {
			if steps > len(b)+1<<16 {
				t.Fatal("no progress")
			}
			m, rest, err := nextMessage(b)
			if err != nil {
				if !errors.Is(err, ErrMalformed) {
					t.Fatal(err)
				}
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
			if n, err := m.errno(); err == nil && (n < 0 || n > 4095) {
				t.Fatalf("errno %d", n)
			}
			if _, err := parseInfo(&m); err != nil && !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			if d, err := parseDestination(&m, IPv4); err == nil && !d.Addr.IsValid() || err != nil &&
				!errors.Is(err, ErrMalformed) {
				t.Fatal(d, err)
			}
			s, err := parseService(&m)
			if err != nil {
				if !errors.Is(err, ErrMalformed) {
					t.Fatal(err)
				}
				continue
			}
			if s.Family != IPv4 && s.Family != IPv6 || s.Mark == 0 && FamilyOf(s.Addr) != s.Family {
				t.Fatalf("impossible service %+v", s)
			}
		}
	})
}
