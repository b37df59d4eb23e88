package sim

import "time"

// event is something that happens at a moment of virtual time.
type event struct {
	at   time.Duration // on the world's clock
	seq  uint64        // orders events of one moment
	kind eventKind     // what happens
	node int32         // to which node
	from int32         // who sent data
	life uint32        // of the node; events of a former life are dropped
	sent uint32        // life of the sender: a stream ends with either end
	data []byte        // of a packet
	fn   func()        // of what a test has planned
}

type eventKind uint8

const (
	evPacket eventKind = iota + 1
	evStream
	evTick
	evCall
)

// queue is a binary heap of events by (at, seq).
type queue []event

func (q queue) less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}

func (q *queue) push(e event) {
	*q = append(*q, e)
	h := *q
	for i := len(h) - 1; i > 0; {
		p := (i - 1) / 2
		if !h.less(i, p) {
			break
		}
		h[i], h[p] = h[p], h[i]
		i = p
	}
}

func (q *queue) pop() event {
	h := *q
	top, n := h[0], len(h)-1
	h[0] = h[n]
	h[n] = event{}
	h = h[:n]
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && h.less(c+1, c) {
			c++
		}
		if !h.less(c, i) {
			break
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
	*q = h
	return top
}
