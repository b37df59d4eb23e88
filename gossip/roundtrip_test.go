package gossip

import (
	"reflect"
	"testing"

	"meshd/state"
)

// roundTrip decodes a frame, encodes it, decodes that and compares.
func roundTrip(t *testing.T, typ byte, p []byte) {
	t.Helper()
	e := newEncoder("x", 1)
	start := len(e.b)
	var first, second any
	var err error
	again := func() (payload []byte) {
		_, payload, _, err = nextFrame(e.b[start:])
		if err != nil {
			t.Fatalf("own frame does not parse: %v", err)
		}
		return payload
	}
	switch typ {
	case framePush, frameDelta:
		d := decoder{b: p}
		x := d.delta()
		if d.err != nil {
			return
		}
		e.open(frameDelta)
		e.delta(x)
		e.close()
		d = decoder{b: again()}
		first, second, err = x, d.delta(), d.err
	case frameProbe, frameEqual, frameProbe32, frameEqual32:
		x, bad := decodeProbe(typ, p)
		if bad != nil {
			return
		}
		e.probe(typ, x)
		first = x
		second, err = decodeProbe(typ, again())
	case frameSummary:
		x, bad := decodeSummary(p)
		if bad != nil {
			return
		}
		e.summary(x)
		first = x
		second, err = decodeSummary(again())
	case frameHeads, frameHot, frameMore:
		x, bad := decodeHeads(typ, p)
		if bad != nil {
			return
		}
		e.heads(typ, x.network, x.n, x.buckets, x.reply, x.heads)
		first = x
		second, err = decodeHeads(typ, again())
	case frameWants:
		network, ws, bad := decodeWants(p)
		if bad != nil {
			return
		}
		e.wants(network, ws)
		first = ws
		_, second, err = wantsAgain(again())
	case framePing, frameAck, frameAsk, frameHeard:
		x, bad := decodePing(p)
		if bad != nil || x.addr.String() != "invalid AddrPort" && !x.addr.IsValid() {
			return
		}
		e.ping(typ, x)
		first = x
		second, err = decodePing(again())
	default:
		_, _ = decodeCall(p)
		return
	}
	if err != nil || !reflect.DeepEqual(first, second) {
		t.Errorf("type %d: %+v came back as %+v, %v", typ, first, second, err)
	}
}

func wantsAgain(p []byte) (string, []state.Want, error) { return decodeWants(p) }
