package gossiptest

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
)

// The message types of memberlist that carry packets, or harm.
const (
	userMessage = 8
	compound    = 7
	compressed  = 9
)

// Datagram returns the datagram that brings a packet to a node without
// encryption.
func Datagram(packet []byte) []byte { return append([]byte{userMessage}, packet...) }

// Stream returns what brings a packet to a node over a stream without
// encryption. The length that it announces is n.
func Stream(n uint64, packet []byte) []byte {
	b := msgpackMap([]byte{userMessage}, "UserMsgLen", n)
	return append(b, packet...)
}

// PushPull returns the start of an exchange of memberlist's state over a
// stream that announces that many nodes and bytes.
func PushPull(nodes, userState uint64) []byte {
	b := []byte{6, 0x83}
	b = msgpackField(b, "Nodes", nodes)
	b = msgpackField(b, "UserStateLen", userState)
	return append(append(b, 0xa4), "Join\xc2"...)
}

// Compound returns a message of several messages.
func Compound(messages ...[]byte) []byte {
	b := []byte{compound, byte(len(messages))}
	for _, m := range messages {
		b = binary.BigEndian.AppendUint16(b, uint16(len(m)))
	}
	return append(b, bytes.Join(messages, nil)...)
}

// Compressed returns a message that memberlist would decompress: with some
// thousand bytes for each byte of it, if the content is dull.
func Compressed(content []byte) []byte {
	var buf bytes.Buffer
	w := lzw.NewWriter(&buf, lzw.LSB, 8)
	_, _ = w.Write(content) // to memory: it cannot fail
	_ = w.Close()
	b := []byte{compressed, 0x82}
	b = msgpackField(b, "Algo", 0)
	b = append(b, 0xa3)
	b = append(b, "Buf"...)
	b = append(b, 0xc6)
	b = binary.BigEndian.AppendUint32(b, uint32(buf.Len()))
	return append(b, buf.Bytes()...)
}

func msgpackMap(b []byte, key string, n uint64) []byte {
	return msgpackField(append(b, 0x81), key, n)
}

func msgpackField(b []byte, key string, n uint64) []byte {
	b = append(b, 0xa0|byte(len(key)))
	b = append(b, key...)
	b = append(b, 0xcf)
	return binary.BigEndian.AppendUint64(b, n)
}
