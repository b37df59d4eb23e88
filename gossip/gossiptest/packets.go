package gossiptest

import (
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// World names what a packet may speak of: hostile packets are the worse the
// more they know.
type World struct {
	Self     string   // who gets the packets
	Peers    []string // members that it knows
	Networks []string // that it takes part in; "" is always among them
	Addrs    []string // ADDR:PORT to name as others' addresses; none: made up
}

// Packets makes packets from a seed, without end.
func Packets(seed uint64, w World) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for s := Seeded(seed); yield(Packet(s, w)); {
		}
	}
}

// Packet makes one packet.
func Packet(s *Source, w World) []byte {
	g := &grammar{Source: s, w: w}
	p := NewPacket(g.sender(), Of(s, 1, 2, s.hostile()))
	if s.One(40) {
		p.B[0] = byte(s.N(256))
	}
	frames := 1 + s.N(3)
	if s.One(16) {
		frames = 1 + s.N(400)
	}
	typ := byte(1 + s.N(19))
	for range frames {
		if !s.One(3) {
			typ = byte(1 + s.N(19))
		}
		s.light()
		payload := Payload(func(f *Writer) { g.frame(f, typ) })
		n := uint64(len(payload))
		if s.One(50) {
			n = s.hostile()
		}
		p.Byte(typ)
		p.longStr(n, string(payload))
		if len(p.B) > 64<<10 {
			break
		}
	}
	if s.One(30) {
		return p.B[:s.N(len(p.B)+1)]
	}
	return p.B
}

type grammar struct {
	*Source
	w World
}

func (g *grammar) sender() string {
	switch g.N(8) {
	case 0:
		return g.name("evil")
	case 1:
		return g.w.Self
	case 2, 3:
		return "made-up-" + strings.Repeat("x", g.N(8))
	}
	return Of(g.Source, append([]string{"evil"}, g.w.Peers...)...)
}

func (g *grammar) owner() string {
	switch g.N(6) {
	case 0:
		return g.w.Self
	case 1:
		return g.name("nobody")
	}
	return Of(g.Source, append([]string{"evil", "nobody", "made-up"}, g.w.Peers...)...)
}

func (g *grammar) network() string {
	if g.One(8) {
		return g.name("unknown")
	}
	return Of(g.Source, append([]string{""}, g.w.Networks...)...)
}

// ref writes a string through the frame's table, now and then by a number that
// is not in it.
func (g *grammar) ref(w *Writer, s string) {
	if g.One(60) {
		w.Uint(uint64(len(w.table) + g.N(3))) // the last, or none
		return
	}
	w.Ref(s)
}

// version is one of a stream: small, or at an edge.
func (g *grammar) version() uint64 {
	if g.One(3) {
		return g.hostile()
	}
	return uint64(g.N(12))
}

func (g *grammar) frame(w *Writer, typ byte) {
	switch typ {
	case Push:
		w.Byte(byte(g.N(256)))
		g.deltas(w)
	case Delta:
		g.deltas(w)
	case Probe, Equal, Probe32, Equal32:
		g.probe(w, typ == Probe || typ == Equal)
	case Summary:
		w.Str(g.network())
		n := Of(g.Source, 1, 2, 16, 256, 3, 0)
		w.Uint(g.Number(uint64(n)))
		for range n {
			w.Fixed(g.hostile())
		}
		g.heads(w)
	case Heads, Hot, More:
		w.Str(g.network())
		if typ == Heads {
			g.buckets(w)
		}
		g.heads(w)
	case Wants:
		g.wants(w)
	case Ping, Ack, Ask, Heard:
		w.Uint(g.hostile())
		w.Str(g.owner())
		w.Str(Of(g.Source, append(g.w.Addrs, "192.0.2.1:53", "invalid AddrPort", "[::1]:1", "255.255.255.255:9", "",
			g.name(""))...))
	case Call, Reply:
		w.Uint(g.hostile())
		w.Str(Of(g.Source, "keys", "sums", "", g.name("x")))
		w.B = append(w.B, Of(g.Source, "", "{", "[[[[[[[[[[", `{"op":"remove","id":"x"}`, `{"op":"install","key":"AAAA"}`,
			"null", strings.Repeat("[", 1+g.N(4000)))...)
	default:
		w.B = append(w.B, make([]byte, g.N(60))...)
	}
}

func (g *grammar) probe(w *Writer, wide bool) {
	flags := byte(g.N(256))
	w.Byte(flags)
	if wide && flags&4 != 0 {
		w.Fixed(g.hostile()) // the global scope's
	}
	for range g.N(20) {
		network := g.network()
		h := sha256.Sum256([]byte(network))
		hash := binary.LittleEndian.Uint64(h[:])
		if !wide {
			hash = xxhash.Sum64String(network)
		}
		if g.One(4) {
			hash = g.hostile()
		}
		if wide {
			w.Fixed(hash)
		} else {
			w.B = binary.LittleEndian.AppendUint32(w.B, uint32(hash))
		}
		w.Fixed(g.hostile())
	}
}

func (g *grammar) buckets(w *Writer) {
	n := Of(g.Source, 1, 2, 64, 256)
	w.Uint(g.Number(uint64(n)))
	w.Byte(byte(g.N(4)))
	k := g.N(n + 1)
	w.Uint(g.Number(uint64(k)))
	for i := range k {
		w.Uint(g.Number(uint64(i)))
	}
}

func (g *grammar) heads(w *Writer) {
	n := g.N(4)
	if g.One(20) {
		n = g.N(400)
	}
	w.Uint(g.Number(uint64(n)))
	for range n {
		g.ref(w, g.owner())
		w.Byte(byte(g.N(8)))
		w.Uint(Of(g.Source, 1, 1, 2, g.version()))
		v := g.version()
		w.Uint(v)
		w.Uint(g.Number(Of(g.Source, v, 0)))
		w.Fixed(g.hostile())
	}
}

func (g *grammar) wants(w *Writer) {
	w.Str(g.network())
	n := g.N(4)
	if g.One(10) {
		n = g.N(800)
	}
	w.Uint(g.Number(uint64(n)))
	for range n {
		g.ref(w, g.owner())
		w.Byte(byte(g.N(2)))
		w.Uint(Of(g.Source, 0, 1, g.version()))
		w.Uint(Of(g.Source, 0, 0, g.version()))
		w.Uint(g.Number(0))
	}
}

func (g *grammar) deltas(w *Writer) {
	n := 1 + g.N(2)
	if g.One(20) {
		n = g.N(60)
	}
	for range n {
		g.delta(w)
	}
}

// delta writes a delta that half of the time is right, so that its records get
// where records go.
func (g *grammar) delta(w *Writer) {
	owner, inc := g.owner(), Of(g.Source, 1, 2, g.version())
	right := !g.One(2)
	from := uint64(0)
	if !right {
		from = g.version()
	}
	records, last := g.records(from)
	to := last - from
	sum := Sum(records)
	flags := byte(1)
	if !right {
		sum, flags, to = Of(g.Source, sum, g.hostile()), byte(g.N(8)), g.Number(to)
	}
	g.ref(w, g.network())
	g.ref(w, owner)
	w.Byte(flags)
	w.Uint(inc)
	w.Uint(from)
	w.Uint(to)
	w.Uint(g.Number(Of(g.Source, to, to, 0)))
	w.Fixed(sum)
	if flags&2 != 0 {
		w.Uint(g.Number(0))
		w.Uint(g.Number(to))
	}
	w.Uint(g.Number(uint64(len(records))))
	prev := from
	for _, r := range records {
		g.record(w, r, prev, right)
		prev = r.Version
	}
}

func (g *grammar) records(from uint64) (rs []Record, last uint64) {
	last = from
	for range g.N(5) {
		last += uint64(1 + g.N(3))
		r := Record{Kind: Of(g.Source, kinds...), Version: last, Key: g.key(), Deleted: g.One(6)}
		if !r.Deleted {
			r.Group, r.Body = g.name("web"), g.body(r.Kind)
		}
		rs = append(rs, r)
	}
	return rs, last
}

// key is a task, a service, a network, or nothing.
func (g *grammar) key() string {
	return Of(g.Source, append([]string{"", "web", "t1", "t2", "web~", g.name("n1")}, g.w.Networks...)...)
}

func (g *grammar) record(w *Writer, r Record, prev uint64, right bool) {
	kind := r.Kind
	if r.Deleted {
		kind |= 0x80
	}
	w.Byte(kind)
	if right {
		w.Uint(r.Version - prev)
	} else {
		w.Uint(g.Number(r.Version - prev))
	}
	w.Str(r.Key)
	if !r.Deleted {
		g.ref(w, r.Group)
		w.Str(r.Body)
	}
}
