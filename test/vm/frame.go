package vm

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Frame is what travels from the machine to the outside: a kind, and bytes
// whose meaning depends on it.
type Frame struct {
	Kind    Kind
	Payload []byte
}

// Kind is the kind of a [Frame].
type Kind byte

// The kinds. Hello comes first, then for each program Start, any number of
// Output, any number of File, and Exit; Bye is last.
const (
	Hello  Kind = 'H' // payload: the kernel's release
	Start  Kind = 'S' // a program starts; payload: none
	Output Kind = 'O' // what it prints, standard output and error as one
	File   Kind = 'F' // a file it left that was asked for; payload: path, 0 byte, contents
	Exit   Kind = 'X' // it ended; payload: [Result] as JSON
	Bye    Kind = 'B' // all is done; payload: none, or what went wrong with the machine
)

// MaxFrame is the most bytes in a frame's payload.
const MaxFrame = 64 << 20

// WriteFrame writes one frame: its kind, the length of the payload in four
// bytes, big-endian, and the payload.
func WriteFrame(w io.Writer, f Frame) error {
	if len(f.Payload) > MaxFrame {
		return fmt.Errorf("a frame of %d bytes; %d are the most", len(f.Payload), MaxFrame)
	}
	b := make([]byte, 5, 5+len(f.Payload))
	b[0] = byte(f.Kind)
	binary.BigEndian.PutUint32(b[1:], uint32(len(f.Payload)))
	_, err := w.Write(append(b, f.Payload...))
	return err
}

// ReadFrame reads one frame. The error is [io.EOF] between two frames only.
func ReadFrame(r io.Reader) (Frame, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Frame{}, err
	}
	f := Frame{Kind: Kind(head[0])}
	switch f.Kind {
	case Hello, Start, Output, File, Exit, Bye:
	default:
		return Frame{}, fmt.Errorf("unknown kind of frame %q from the machine", head[0])
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrame {
		return Frame{}, fmt.Errorf("a frame of %d bytes from the machine; %d are the most", n, MaxFrame)
	}
	var err error
	f.Payload, err = io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(f.Payload) != int(n) {
		err = io.ErrUnexpectedEOF
	}
	return f, err
}
