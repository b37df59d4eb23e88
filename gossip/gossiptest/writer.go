package gossiptest

import "encoding/binary"

// The frame types of the wire.
const (
	Push byte = iota + 1
	Delta
	Probe32
	Summary
	Heads
	Hot
	Wants
	Ping
	Ack
	Ask
	Heard
	Equal32
	Call
	Reply
	More
	Probe
	Equal
)

// Writer writes a packet, or anything else, field by field. It checks nothing.
type Writer struct {
	B     []byte // what was written so far
	table map[string]uint64
}

// NewPacket starts a packet of a sender.
func NewPacket(from string, boot uint64) *Writer {
	w := &Writer{B: []byte{1}}
	w.Str(from)
	w.B = binary.BigEndian.AppendUint64(w.B, boot)
	return w
}

// Byte writes one byte.
func (w *Writer) Byte(v byte) { w.B = append(w.B, v) }

// Uint writes a number of variable length.
func (w *Writer) Uint(v uint64) { w.B = binary.AppendUvarint(w.B, v) }

// Fixed writes a number of eight bytes.
func (w *Writer) Fixed(v uint64) { w.B = binary.LittleEndian.AppendUint64(w.B, v) }

// Str writes a string with its length.
func (w *Writer) Str(s string) { w.longStr(uint64(len(s)), s) }

// longStr writes a string with a length that may be a lie.
func (w *Writer) longStr(n uint64, s string) {
	w.Uint(n)
	w.B = append(w.B, s...)
}

// Ref writes a string through the frame's table, as honest nodes do.
func (w *Writer) Ref(s string) {
	if r, ok := w.table[s]; ok {
		w.Uint(r)
		return
	}
	w.Uint(0)
	w.Str(s)
	if w.table == nil {
		w.table = map[string]uint64{}
	}
	w.table[s] = uint64(len(w.table) + 1)
}

// Frame writes a frame: its type, its length, and what f writes.
func (w *Writer) Frame(typ byte, f func(w *Writer)) {
	p := Payload(f)
	w.Byte(typ)
	w.longStr(uint64(len(p)), string(p))
}

// Payload returns what f writes, as the payload of a frame.
func Payload(f func(w *Writer)) []byte {
	w := &Writer{}
	f(w)
	return w.B
}
