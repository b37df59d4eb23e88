package gossiptest

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Record is one record of a stream.
type Record struct {
	Kind    byte
	Deleted bool
	Version uint64
	Key     string
	Group   string
	Body    string
}

// Sum returns the checksum of a stream with these live records: a delta with
// another one is refused as a whole, whatever its records say.
func Sum(records []Record) (sum uint64) {
	for _, r := range records {
		if !r.Deleted {
			sum += r.sum()
		}
	}
	return sum
}

func (r *Record) sum() uint64 {
	text := string([]byte{r.Kind}) + r.Key + r.Group + r.Body
	return mix(xxhash.Sum64String(text) + mix(r.Version<<16|uint64(byte(len(r.Key)))<<8|uint64(byte(len(r.Group)))))
}

func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// The kinds of records, and one that nobody knows.
var kinds = []byte{1, 2, 3, 16, 17, 18, 19, 99}

// fields says how many tags a kind's body has.
var fields = map[byte]int{1: 10, 2: 4, 3: 6, 16: 5, 17: 1, 18: 6, 19: 5, 99: 3}

// body makes a record's body: fields with hostile numbers, addresses, names and
// lengths.
func (s *Source) body(kind byte) string {
	w := &Writer{}
	for range s.N(fields[kind] + 2) {
		v := s.value()
		w.Byte(byte(1 + s.N(fields[kind]+1)))
		n := uint64(len(v))
		if s.One(24) {
			n = s.hostile()
		}
		w.longStr(n, v)
		if len(w.B) > 4300 { // a little more than a body may have
			break
		}
	}
	return string(w.B)
}

// value makes the value of a field.
func (s *Source) value() string {
	switch s.N(8) {
	case 0, 1:
		return string(binary.AppendUvarint(nil, s.hostile()))
	case 2:
		return string(binary.AppendUvarint(nil, uint64(s.N(300))))
	case 3: // an address
		return Of(s, "\x7f\x00\x00\x01", "\x00\x00\x00\x00", "\xff\xff\xff\xff", "\x0a\x00\x00\x05", "\xc0\xa8\x4d\x01",
			"\xe0\x00\x00\x01",
			"\xfd\x41\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01",
			"\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01",
			"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x01")
	case 4: // a pool
		return Of(s, "\x7f\x00\x00\x00\x08", "\x00\x00\x00\x00\x00", "\x0a\x00\x00\x00\x08", "\x0a\x60\x00\x00\x10",
			"\x0a\x09\x00\x00\x18", "\x0a\x00\x00\x00\xff",
			"\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03",
			"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	case 5: // a port
		return Of(s, "\x00\x50\x06", "\x00\x00\x06", "\xff\xff\x84", "\x00\x35\x11dns", "\x00\x50\x06../..")
	case 6:
		return s.name("web")
	}
	return string(make([]byte, s.N(40)))
}

// name is a name, or what a person might take for one.
func (s *Source) name(honest string) string {
	if !s.One(4) {
		return honest
	}
	long := make([]byte, Of(s, 63, 64, 253, 254, 255, 256))
	for i := range long {
		long[i] = 'x'
	}
	return Of(s, "", "tasks", "nearest", "a.b.c", "../../etc/passwd", "\x00", "%s%n", "\xff\xfe", "Web", "-x", "web~", "*",
		string(long))
}
