package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/gossip/gossiptest"
)

// pipes is a memberlist transport whose traffic the test makes.
type pipes struct {
	packets chan *memberlist.Packet
	streams chan net.Conn
	dialled chan net.Conn
	down    chan struct{}
}

func newPipes() *pipes {
	return &pipes{make(chan *memberlist.Packet), make(chan net.Conn), make(chan net.Conn, 16), make(chan struct{})}
}

func (p *pipes) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IPv4(127, 0, 0, 1), 1, nil
}
func (p *pipes) PacketCh() <-chan *memberlist.Packet           { return p.packets }
func (p *pipes) StreamCh() <-chan net.Conn                     { return p.streams }
func (p *pipes) WriteTo(b []byte, _ string) (time.Time, error) { return time.Now(), nil }
func (p *pipes) Shutdown() error                               { close(p.down); return nil }
func (p *pipes) DialTimeout(string, time.Duration) (net.Conn, error) {
	a, b := net.Pipe()
	p.dialled <- b
	return a, nil
}

func (p *pipes) WriteToAddress(b []byte, _ memberlist.Address) (time.Time, error) {
	return time.Now(), nil
}

func (p *pipes) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	return p.DialTimeout(a.Addr, d)
}

func testTransport(t *testing.T, encrypted bool) (*Transport, *pipes) {
	t.Helper()
	p := newPipes()
	tr := newTransport(p, Config{DialTimeout: time.Second, StreamTimeout: time.Minute}, encrypted, nil)
	t.Cleanup(func() {
		if err := tr.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return tr, p
}

// frame is an encrypted stream frame of n bytes.
func frame(version byte, n int) []byte {
	b := binary.BigEndian.AppendUint32([]byte{encryptedFrame}, uint32(n))
	return append(b, append([]byte{version}, make([]byte, max(n-1, 0))...)...)
}

func TestGuardFrames(t *testing.T) {
	for _, x := range []struct {
		name string
		sent []byte
		fine bool
	}{
		{"ours", frame(1, 100), true},
		{"long", frame(1, 70000), true},
		{"one byte of content", frame(1, 30), true},
		{"no content", frame(1, 29), false},
		{"shorter than its overhead", frame(1, 3), false},
		{"empty", frame(1, 0), false},
		{"version 0, whose padding is not checked", frame(0, 61), false},
		{"unknown version", frame(2, 61), false},
		{"cut in its head", frame(1, 100)[:3], false},
		{"plain: for memberlist to refuse", []byte{6, 1, 2, 3}, true},
	} {
		tr, p := testTransport(t, true)
		a, b := net.Pipe()
		go func() { _, _ = b.Write(x.sent); _ = b.Close() }()
		p.streams <- a
		s := <-tr.StreamCh()
		got, err := io.ReadAll(s)
		if fine := err == nil && slices.Equal(got, x.sent); fine != x.fine {
			t.Errorf("%s: read %d of %d bytes, %v", x.name, len(got), len(x.sent), err)
		}
		if _, again := s.Read(make([]byte, 1)); again == nil {
			t.Errorf("%s: reads go on after the end", x.name)
		}
		_ = s.Close()
	}
}

// A peer that gives up before it sends has done no harm, and whoever reads
// again, as memberlist does, is told the same again.
func TestGuardOfNothing(t *testing.T) {
	for sent, want := range map[string]error{"": io.EOF, "\x0a\x00": io.ErrUnexpectedEOF} {
		tr, p := testTransport(t, true)
		a, b := net.Pipe()
		go func() { _, _ = io.WriteString(b, sent); _ = b.Close() }()
		p.streams <- a
		s := <-tr.StreamCh()
		for range 2 {
			if _, err := s.Read(make([]byte, 64)); !errors.Is(err, want) {
				t.Errorf("after %q: %v, want %v", sent, err, want)
			}
		}
		if n := tr.rejected.Load(); n != 0 {
			t.Errorf("after %q: %d rejected", sent, n)
		}
		_ = s.Close()
	}
}

// TestGuardAnswers: a peer that is dialled may be hostile as well.
func TestGuardAnswers(t *testing.T) {
	tr, p := testTransport(t, true)
	c, err := tr.DialAddressTimeout(memberlist.Address{Addr: "127.0.0.1:1"}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	peer := <-p.dialled
	go func() { _, _ = peer.Write(frame(1, 29)) }()
	if _, err := c.Read(make([]byte, 64)); !errors.Is(err, errFrame) {
		t.Errorf("an empty frame as an answer: %v", err)
	}
	if tr.rejected.Load() != 1 {
		t.Error("it was not counted")
	}
}

func TestGuardPackets(t *testing.T) {
	tr, p := testTransport(t, true)
	for _, b := range [][]byte{
		{},
		{1},
		make([]byte, 60), append([]byte{1}, make([]byte, 28)...),
		append([]byte{244}, make([]byte, 60)...),
	} {
		p.packets <- &memberlist.Packet{Buf: b}
	}
	fine := append([]byte{1}, make([]byte, 29)...)
	p.packets <- &memberlist.Packet{Buf: fine}
	if got := <-tr.PacketCh(); len(got.Buf) != len(fine) || tr.rejected.Load() != 5 {
		t.Errorf("passed %d bytes, rejected %d", len(got.Buf), tr.rejected.Load())
	}
}

// comes is a stream on which a peer says something that is to be read.
func comes(t *testing.T, tr *Transport, p *pipes, said string) (ours, theirs net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	p.streams <- a
	ours = <-tr.StreamCh()
	if said != "" {
		go func() { _, _ = io.WriteString(b, said) }()
		if _, err := ours.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	return ours, b
}

// TestSilentStreamsMakeRoom: G7. Whoever connects and says nothing keeps nobody
// out, neither by the number of streams nor by what is begun on them.
func TestSilentStreamsMakeRoom(t *testing.T) {
	tr, p := testTransport(t, false)
	hello := string(gossiptest.Stream(5, []byte("hello")))
	fine, _ := comes(t, tr, p, hello)
	first, _ := comes(t, tr, p, "")
	for range maxStreamsFrom - 2 {
		comes(t, tr, p, "")
	}
	comes(t, tr, p, hello)
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("the stream that was silent for longest did not end")
	}
	if _, err := fine.Read(make([]byte, 1)); err != nil {
		t.Errorf("an older one that was not silent ended: %v", err)
	}
	if tr.incoming != maxStreamsFrom || tr.refused.Load() != 1 {
		t.Errorf("%d streams, %d refused", tr.incoming, tr.refused.Load())
	}
	tr.held.Store(maxHeldBytes) // as if the silent ones had begun messages
	for s := range tr.open {
		if !s.proven.Load() {
			s.holds.Store(maxHeldBytes / (maxStreamsFrom - 2))
		}
	}
	comes(t, tr, p, hello)
}

func TestStreamsAreBounded(t *testing.T) {
	tr, p := testTransport(t, false)
	var open []net.Conn
	for range maxStreamsFrom {
		s, _ := comes(t, tr, p, string(gossiptest.Stream(5, []byte("hello"))))
		open = append(open, s)
	}
	a, b := net.Pipe()
	p.streams <- a
	if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Error("one stream more than the bound was not closed")
	}
	if tr.refused.Load() != 1 {
		t.Error("it was not counted")
	}
	_ = open[0].Close()
	a, _ = net.Pipe()
	p.streams <- a
	<-tr.StreamCh()
}

func TestStreamLength(t *testing.T) {
	tr, p := testTransport(t, false)
	a, b := net.Pipe()
	p.streams <- a
	s := <-tr.StreamCh()
	go func() {
		for block := make([]byte, 1<<20); ; {
			if _, err := b.Write(block); err != nil {
				return
			}
		}
	}()
	n, err := io.Copy(io.Discard, s)
	if n != maxStreamBytes || !errors.Is(err, errTooLong) {
		t.Errorf("read %d bytes: %v", n, err)
	}
	_ = s.Close()
}

// TestShutdownEndsStreams: nothing that is open outlives the node.
func TestShutdownEndsStreams(t *testing.T) {
	p := newPipes()
	tr := New(p, Config{DialTimeout: time.Second, StreamTimeout: time.Minute})
	out, err := tr.DialAddressTimeout(memberlist.Address{Addr: "127.0.0.1:1"}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tr.Shutdown(), tr.Shutdown()); err != nil {
		t.Error(err)
	}
	if _, err := out.Read(make([]byte, 1)); err == nil {
		t.Error("a stream outlives its transport")
	}
	if _, err := tr.DialAddressTimeout(memberlist.Address{Addr: "127.0.0.1:1"}, time.Second); err == nil {
		t.Error("a dial after the end")
	}
}

// FuzzGuard: whatever comes in, the guard ends, hands on what it read unchanged,
// and lets no frame through that would crash memberlist.
func FuzzGuard(f *testing.F) {
	f.Add(frame(1, 29))
	f.Add(frame(0, 61))
	f.Add(frame(1, 200))
	f.Add([]byte{10})
	f.Add([]byte{244, 1, 'x', 10})
	f.Fuzz(func(t *testing.T, sent []byte) {
		tr := &Transport{encrypted: true, open: map[*stream]struct{}{}}
		a, b := net.Pipe()
		go func() { _, _ = b.Write(sent); _ = b.Close() }()
		s := tr.track(a, false)
		got, err := io.ReadAll(s)
		_ = a.Close()
		if err == nil && !slices.Equal(got, sent) {
			t.Fatalf("sent %x, got %x", sent, got)
		}
		if len(got) > 0 && got[0] == encryptedFrame && (len(got) < frameHead || !saneFrame(got)) {
			t.Fatalf("let through %x", got)
		}
	})
}

// TestOwnMessage: what memberlist makes of a packet of ours is known for what it
// is; what it would not hand on, and everything else, is left to it.
func TestOwnMessage(t *testing.T) {
	body := []byte("a packet")
	own := append([]byte{msgUser}, body...)
	checked := binary.BigEndian.AppendUint32([]byte{msgCRC}, crc32.ChecksumIEEE(own))
	checked = append(checked, own...)
	for _, b := range [][]byte{own, checked} {
		if got := ownMessage(b); !bytes.Equal(got, body) {
			t.Errorf("%v is %q", b, got)
		}
	}
	broken := slices.Clone(checked)
	broken[len(broken)-1]++
	for _, b := range [][]byte{nil, {}, {msgCRC}, {msgCRC, 0, 0, 0, 0}, broken, {0, 1, 2}, compoundOf(own)} {
		if got := ownMessage(b); got != nil {
			t.Errorf("%v is %q", b, got)
		}
	}
}

func compoundOf(b []byte) []byte { return append([]byte{7, 1, 0, byte(len(b))}, b...) }
