package state

import (
	"container/heap"
	"maps"
	"slices"
)

// contest is the claims on one address, the best first. Nothing in it costs more
// than the logarithm of their number: whoever states a hundred thousand claims
// on one address must not have us compare each with all others.
type contest struct {
	network  string
	live     map[VIPClaim]struct{}
	services map[string]int // how many of live are theirs
	heap     []VIPClaim     // all of live, and some that were withdrawn
}

// Len implements heap.Interface.
func (x *contest) Len() int { return len(x.heap) }

// Less implements heap.Interface.
func (x *contest) Less(i, j int) bool { return x.heap[i].better(&x.heap[j], x.network) < 0 }

// Swap implements heap.Interface.
func (x *contest) Swap(i, j int) { x.heap[i], x.heap[j] = x.heap[j], x.heap[i] }

// Push implements heap.Interface.
func (x *contest) Push(c any) { x.heap = append(x.heap, c.(VIPClaim)) }

// Pop implements heap.Interface.
func (x *contest) Pop() any {
	last := len(x.heap) - 1
	c := x.heap[last]
	x.heap = x.heap[:last]
	return c
}

func (x *contest) add(c VIPClaim) {
	if len(x.heap) > 2*len(x.live)+16 { // mostly withdrawn ones
		x.heap = slices.AppendSeq(make([]VIPClaim, 0, len(x.live)+1), maps.Keys(x.live))
		heap.Init(x)
	}
	x.live[c] = struct{}{}
	x.services[c.Service]++
	heap.Push(x, c)
}

func (x *contest) remove(c VIPClaim) {
	delete(x.live, c)
	if x.services[c.Service]--; x.services[c.Service] == 0 {
		delete(x.services, c.Service)
	}
}

// winner returns the service that has the address; empty: none.
func (x *contest) winner() string {
	for len(x.heap) > 0 {
		if _, ok := x.live[x.heap[0]]; ok {
			return x.heap[0].Service
		}
		heap.Pop(x)
	}
	return ""
}

// tell calls changed for the services that won or lost the address since was
// was its winner: nothing changes for the others.
func (x *contest) tell(was string, changed func(service string)) {
	now := x.winner()
	if now == was {
		return
	}
	for _, s := range []string{was, now} {
		if s != "" {
			changed(s)
		}
	}
}
