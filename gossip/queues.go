package gossip

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

// This file owns the two queues of packets between the loop and the network. Both are
// bounded (G7): what is over the bound is dropped, counted and left to repair.

// Bounds of the queues, in packets and bytes, and how many streams are written at once.
const (
	maxInbox       = 8192
	maxInboxBytes  = 32 << 20
	maxStreamSends = 512
	maxStreamSent  = 32 << 20
	streamWorkers  = 8
)

// packet is a packet of a peer as it arrived.
type packet struct {
	from netip.AddrPort // the zero AddrPort: not known
	data []byte
}

// packetQueue holds the packets that wait for the loop. Safe for concurrent use.
type packetQueue struct {
	packets chan packet
	bytes   atomic.Int64  // of packets, and of the one being added
	dropped atomic.Uint64 // packets over a bound
}

func newPacketQueue() packetQueue { return packetQueue{packets: make(chan packet, maxInbox)} }

// add adds a copy of a packet.
func (q *packetQueue) add(from netip.AddrPort, b []byte) {
	if len(b) > maxPacket || q.bytes.Add(int64(len(b))) > maxInboxBytes {
		if len(b) <= maxPacket {
			q.bytes.Add(-int64(len(b)))
		}
		q.dropped.Add(1)
		return
	}
	select {
	case q.packets <- packet{from, slices.Clone(b)}:
	default:
		q.bytes.Add(-int64(len(b)))
		q.dropped.Add(1)
	}
}

// taken says that a packet of the queue is being handled.
func (q *packetQueue) taken(p packet) { q.bytes.Add(-int64(len(p.data))) }

// streamQueue holds the packets that go over streams: memberlist dials one for each,
// and waits. Safe for concurrent use.
type streamQueue struct {
	sends   chan Send
	bytes   atomic.Int64  // of sends, and of the one being added
	dropped atomic.Uint64 // packets over a bound
	failed  atomic.Uint64 // packets that could not be sent
}

func newStreamQueue() streamQueue { return streamQueue{sends: make(chan Send, maxStreamSends)} }

// add adds a packet, whose address must be valid.
func (q *streamQueue) add(s Send) {
	n := int64(len(s.Data))
	if q.bytes.Add(n) <= maxStreamSent {
		select {
		case q.sends <- s:
			return
		default:
		}
	}
	q.bytes.Add(-n)
	q.dropped.Add(1)
}

// run sends what waits, until ctx ends. The transport's deadline bounds each packet.
func (q *streamQueue) run(ctx context.Context, ml *memberlist.Memberlist, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-q.sends:
			q.bytes.Add(-int64(len(s.Data)))
			if err := ml.SendReliable(destination(s), s.Data); err != nil {
				q.failed.Add(1)
				log.Debug("bulk send failed", "node", string(s.To), "bytes", len(s.Data), "error", err)
			}
		}
	}
}
