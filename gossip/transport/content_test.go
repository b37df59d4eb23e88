package transport

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/gossip/gossiptest"
	"meshd/state"
)

var testKey = bytes.Repeat([]byte{7}, 16)

// sealed encrypts as memberlist does.
func sealed(content, data []byte) []byte {
	block, _ := aes.NewCipher(testKey)
	gcm, _ := cipher.NewGCM(block)
	b := append([]byte{1}, make([]byte, nonceSize)...)
	return gcm.Seal(b, b[1:], content, data)
}

func sealedFrame(content []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{encryptedFrame}, uint32(len(content)+29))
	return append(head, sealed(content, head)...)
}

// guarded is a transport that can look into what it gets.
func guarded(t *testing.T, encrypted bool) (*Transport, *pipes) {
	tr, p := testTransport(t, encrypted)
	if encrypted {
		tr.opener = &opener{keys: func() [][]byte { return [][]byte{bytes.Repeat([]byte{9}, 16), testKey} }}
	}
	return tr, p
}

// ping is a message of memberlist with a name that announces n bytes.
func ping(typ byte, n uint32) []byte {
	b := append([]byte{typ, 0x82, 0xa5}, "SeqNo\x01\xa4Node\xdb"...)
	return binary.BigEndian.AppendUint32(b, n)
}

// TestGuardDatagrams: what makes memberlist allocate or decompress out of
// proportion is not handed on, encrypted or not, alone or in company.
func TestGuardDatagrams(t *testing.T) {
	honest := append(ping(msgPing, 3), "abc"...)
	deep := append([]byte{msgPing, 0x81, 0xa1, 'x'}, bytes.Repeat([]byte{0x91}, 1000)...)
	crc := func(b []byte) []byte { return append([]byte{msgCRC, 0, 0, 0, 0}, b...) }
	for _, x := range []struct {
		name    string
		content []byte
		fine    bool
	}{
		{"a packet of ours", gossiptest.Datagram([]byte("x")), true},
		{"a ping", honest, true},
		{"with its checksum", crc(honest), true},
		{"a compound", gossiptest.Compound(honest, gossiptest.Datagram([]byte("x"))), true},
		{"a compound that was cut", gossiptest.Compound(honest, honest)[:30], true},
		{"compressed", gossiptest.Compressed(make([]byte, 1<<20)), false},
		{"compressed, with its checksum", crc(gossiptest.Compressed(nil)), false},
		{"compressed in a compound", gossiptest.Compound(honest, gossiptest.Compressed(nil)), false},
		{"a compound in a compound", gossiptest.Compound(gossiptest.Compound(honest)), false},
		{"a name of 4 GiB", ping(msgPing, 1<<32-1), false},
		{"a name of 4 GiB in a compound", gossiptest.Compound(ping(msgAlive, 1<<32-1)), false},
		{"a list of 4 Gi", []byte{msgAlive, 0xdd, 0xff, 0xff, 0xff, 0xff}, false},
		{"a map of 64 Ki", []byte{msgAlive, 0xde, 0xff, 0xff}, false},
		{"a thousand lists in each other", deep, false},
		{"nothing", nil, false},
		{"an empty part", gossiptest.Compound(nil), false},
	} {
		for _, encrypted := range []bool{false, true} {
			tr, p := guarded(t, encrypted)
			b := x.content
			if encrypted {
				b = sealed(b, nil)
			}
			go func() {
				p.packets <- &memberlist.Packet{Buf: b}
				p.packets <- &memberlist.Packet{
					Buf:       map[bool][]byte{false: honest, true: sealed(honest, nil)}[encrypted],
					Timestamp: time.Unix(1, 0),
				}
			}()
			got := <-tr.PacketCh()
			first := got.Timestamp.IsZero()
			if first {
				<-tr.PacketCh()
			}
			if first != x.fine || (tr.rejected.Load() == 0) != x.fine {
				t.Errorf("%s, encrypted %v: handed on %v, %d rejected", x.name, encrypted, first, tr.rejected.Load())
			}
		}
	}
}

// TestGuardStreams: the same over streams, whole or byte by byte.
func TestGuardStreams(t *testing.T) {
	node := []byte("\x87\xa4Name\xa1b\xa4Addr\xc4\x040000\xa4Port\xcd\x1f\x0a\xa4Meta\xc0" +
		"\xabIncarnation\x01\xa5State\x00\xa3Vsn\xc4\x06123456")
	for _, x := range []struct {
		name    string
		content []byte
		fine    bool
	}{
		{"a packet of ours", gossiptest.Stream(3, []byte("abc")), true},
		{"a state of two nodes", append(append(gossiptest.PushPull(2, 0), node...), node...), true},
		{"a ping", append(ping(msgPing, 3), "abc"...), true},
		{"an error", []byte("\x0d\x81\xa5Error\xa2no"), true},
		{"compressed", gossiptest.Compressed(make([]byte, 1<<20)), false},
		{"a packet of 20 MiB", gossiptest.Stream(20<<20, []byte("abc")), false},
		{"a packet of -1", gossiptest.Stream(1<<64-1, []byte("abc")), false},
		{"a million nodes", gossiptest.PushPull(1<<20, 0), false},
		{"a state of 20 MiB", gossiptest.PushPull(0, 20<<20), false},
		{"a node's name of 4 GiB", append(gossiptest.PushPull(1, 0), 0x81, 0xa4, 'N', 'a', 'm', 'e', 0xdb, 0xff, 0xff, 0xff, 0xff), false},
		{"a header with more in it", append([]byte{msgUser, 0x81, 0xa1, 'x'}, bytes.Repeat([]byte{0x91}, 100)...), false},
		{"a header that is a list", []byte{msgUser, 0x91, 1}, false},
	} {
		for _, encrypted := range []bool{false, true} {
			for _, size := range []int{1 << 20, 1} {
				tr, p := guarded(t, encrypted)
				sent := x.content
				if encrypted {
					sent = sealedFrame(sent)
				}
				a, b := net.Pipe()
				go func() {
					for c := range slices.Chunk(sent, size) {
						if _, err := b.Write(c); err != nil {
							return
						}
					}
					_ = b.Close()
				}()
				p.streams <- a
				s := <-tr.StreamCh()
				got, err := io.ReadAll(s)
				if fine := err == nil && bytes.Equal(got, sent); fine != x.fine {
					t.Errorf("%s, encrypted %v: read %d of %d bytes, %v", x.name, encrypted, len(got), len(sent), err)
				}
				_ = s.Close()
				_ = b.Close()
				if n := tr.held.Load(); n != 0 {
					t.Errorf("%s, encrypted %v: %d bytes are held after the end", x.name, encrypted, n)
				}
			}
		}
	}
}

// TestGuardHolds: streams that announce much and say it slowly do not fill the
// memory.
func TestGuardHolds(t *testing.T) {
	tr, p := guarded(t, true)
	frame := sealedFrame(make([]byte, maxStreamBytes-64))
	for range 2 * maxHeldBytes / maxStreamBytes {
		a, b := net.Pipe()
		p.streams <- a
		s := <-tr.StreamCh()
		go func() {
			if _, err := s.Read(make([]byte, 1)); err != nil {
				_ = s.Close() // as memberlist does
			}
		}()
		_, _ = b.Write(frame[:len(frame)-1])
		t.Cleanup(func() { _ = s.Close(); _ = b.Close() })
		if n := tr.held.Load(); n > maxHeldBytes {
			t.Fatalf("%d bytes are held", n)
		}
	}
	if tr.refused.Load() == 0 {
		t.Error("no stream was refused")
	}
}

// TestStrangePackets: packets that no key opens reach memberlist, which logs
// each, now and then only.
func TestStrangePackets(t *testing.T) {
	tr, p := guarded(t, true)
	strange := append([]byte{1}, []byte(strings.Repeat("x", 60))...)
	for range 100 {
		select {
		case p.packets <- &memberlist.Packet{Buf: strange}:
		case <-tr.PacketCh():
		}
	}
	if n := tr.rejected.Load(); n < 95 {
		t.Errorf("%d of 100 rejected", n)
	}
}

// FuzzSkip: a value that is walked through whole ends within its bytes, and no
// longer input makes it end elsewhere.
func FuzzSkip(f *testing.F) {
	f.Add(ping(0, 3)[1:])
	f.Add(gossiptest.PushPull(3, 0)[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		n, st := skip(b, maxDepth)
		if st != whole {
			return
		}
		if n <= 0 || n > len(b) {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		if m, again := skip(b[:n], maxDepth); again != whole || m != n {
			t.Errorf("%d bytes alone are %d, %v", n, m, again)
		}
		if _, st := skip(b[:n-1], maxDepth); st != cut && n > 1 {
			t.Errorf("all but the last byte: %v", st)
		}
		c := content{b: append([]byte{msgPushPull}, b...)}
		c.sane()
		sanePlain(append([]byte{msgCompound}, b...))
	})
}

// TestDeadMessage: the transport lets it through, with the longest names, sealed
// and opened.
func TestDeadMessage(t *testing.T) {
	long := strings.Repeat("n", state.MaxLabel)
	o := &opener{keys: func() [][]byte { return [][]byte{make([]byte, 32)} }}
	for _, id := range []string{"a", long} {
		b := DeadMessage(id, long, 7)
		if !sanePlain(b) {
			t.Errorf("%q is refused", b)
		}
		if got := o.open(o.seal(b), nil); string(got) != string(b) {
			t.Errorf("%q is opened as %q", b, got)
		}
	}
}

// TestAliveMessage: likewise, with addresses of both families.
func TestAliveMessage(t *testing.T) {
	o := &opener{keys: func() [][]byte { return [][]byte{make([]byte, 32)} }}
	for _, a := range []string{"10.0.0.1:7946", "[fd00::1]:65535"} {
		b := AliveMessage(strings.Repeat("n", state.MaxLabel), netip.MustParseAddrPort(a), 1, [6]byte{1, 5, 2, 0, 0, 0})
		if !sanePlain(b) {
			t.Errorf("%q is refused", b)
		}
		if got := o.open(o.seal(b), nil); string(got) != string(b) {
			t.Errorf("%q is opened as %q", b, got)
		}
	}
}
