package gossip

import (
	"container/heap"
	"time"
)

// This file owns the order of what is due: a heap, so that neither the next time nor
// what is due by now is looked for among all that waits.

// agenda is things to do by when they are due. What a thing costs here grows with the
// logarithm of their number. The zero value is empty.
type agenda[T appointment] struct{ heap appointments[T] }

// appointment is one thing in an agenda.
type appointment interface {
	comparable
	dueAt() time.Duration // when it is due
	slot() *int           // its place in the agenda, from 1; 0: it is in none. The agenda's alone
}

// len is how many things wait.
func (a *agenda[T]) len() int { return len(a.heap) }

// put adds a thing, or moves it to where its time says now.
func (a *agenda[T]) put(x T) {
	if at := *x.slot(); at > 0 {
		heap.Fix(&a.heap, at-1)
		return
	}
	heap.Push(&a.heap, x)
}

// remove takes a thing out, if it is there.
func (a *agenda[T]) remove(x T) {
	if at := *x.slot(); at > 0 {
		heap.Remove(&a.heap, at-1)
	}
}

// next returns when the first thing is due, or never if nothing waits.
func (a *agenda[T]) next() time.Duration {
	if len(a.heap) == 0 {
		return never
	}
	return a.heap[0].dueAt()
}

// never is later than any time of a core.
const never = time.Duration(1<<63 - 1)

// due returns what is due at a time, in no order, and leaves it there.
func (a *agenda[T]) due(now time.Duration) []T { return a.heap.due(nil, 0, now) }

// appointments is the heap of an agenda.
type appointments[T appointment] []T

// due appends what is due at a time from place i on down.
func (h appointments[T]) due(out []T, i int, now time.Duration) []T {
	if i >= len(h) || h[i].dueAt() > now {
		return out
	}
	return h.due(h.due(append(out, h[i]), 2*i+1, now), 2*i+2, now)
}

func (h appointments[T]) Len() int           { return len(h) }
func (h appointments[T]) Less(i, j int) bool { return h[i].dueAt() < h[j].dueAt() }

func (h appointments[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	*h[i].slot(), *h[j].slot() = i+1, j+1
}

func (h *appointments[T]) Push(x any) {
	*h = append(*h, x.(T))
	*x.(T).slot() = len(*h)
}

func (h *appointments[T]) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	var none T
	(*h)[last] = none
	*h = (*h)[:last]
	*x.slot() = 0
	return x
}
