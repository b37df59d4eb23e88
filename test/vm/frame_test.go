package vm

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestFrames(t *testing.T) {
	frames := []Frame{
		{Kind: Hello, Payload: []byte("6.1")},
		{Kind: Start, Payload: []byte{}},
		{Kind: Output, Payload: []byte("a\nb\x00")},
		{Kind: File, Payload: bytes.Repeat([]byte{7}, 1<<20)},
		{Kind: Exit, Payload: []byte("{}")},
		{Kind: Bye, Payload: []byte{}},
	}
	var wire bytes.Buffer
	for _, f := range frames {
		if err := WriteFrame(&wire, f); err != nil {
			t.Fatal(err)
		}
	}
	all := bytes.Clone(wire.Bytes())
	for i, want := range frames {
		got, err := ReadFrame(&wire)
		if err != nil || got.Kind != want.Kind || !bytes.Equal(got.Payload, want.Payload) {
			t.Fatalf("frame %d: got %c with %d bytes, %v", i, got.Kind, len(got.Payload), err)
		}
	}
	if _, err := ReadFrame(&wire); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for _, cut := range []int{1, 4, 6, len(all) - 1} {
		r := bytes.NewReader(all[:cut])
		var err error
		for err == nil {
			_, err = ReadFrame(r)
		}
		if cut != len(all)-1 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

func TestBadFrames(t *testing.T) {
	for _, bad := range []string{"Z\x00\x00\x00\x00", "O\xff\xff\xff\xff", "S\x00\x00\x00\x02x"} {
		if f, err := ReadFrame(bytes.NewReader([]byte(bad))); err == nil {
			t.Errorf("%q was read as %+v", bad, f)
		}
	}
	if err := WriteFrame(io.Discard, Frame{Kind: Output, Payload: make([]byte, MaxFrame+1)}); err == nil {
		t.Error("a frame that is too long was written")
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("O\x00\x00\x00\x02ok"))
	f.Add([]byte("H\x7f\xff\xff\xffx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ReadFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := WriteFrame(&again, got); err != nil || !bytes.HasPrefix(b, again.Bytes()) {
			t.Fatalf("%q is written as %q, %v", b, again.Bytes(), err)
		}
	})
}
