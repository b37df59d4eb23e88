package state

import (
	"container/heap"
	"maps"
	"slices"
)

// This file owns which of several claims wins an address (V3).

// heldClaim is a claim that at least one carrier states.
type heldClaim struct {
	VIPClaim
	body     string // as it was first stated: fields of newer versions included
	carriers int
	at       int // in those of its service
}

// contest is the claims on one address. Nearly always there is one, and it costs
// a pointer.
type contest struct {
	only   *heldClaim
	rivals *rivals // instead of only, while there is more than one claim
}

func (x *contest) add(c *heldClaim, network string) {
	switch {
	case x.rivals != nil:
		x.rivals.add(c)
	case x.only != nil:
		x.rivals = &rivals{network: network, live: map[*heldClaim]struct{}{}, services: map[string]int{}}
		x.rivals.add(x.only)
		x.rivals.add(c)
		x.only = nil
	default:
		x.only = c
	}
}

func (x *contest) remove(c *heldClaim) {
	if x.rivals == nil {
		x.only = nil
		return
	}
	x.rivals.remove(c)
	if len(x.rivals.live) == 1 {
		for x.only = range x.rivals.live {
		}
		x.rivals = nil
	}
}

func (x *contest) empty() bool { return x.only == nil && x.rivals == nil }

// winner returns the service that has the address; empty: none.
func (x *contest) winner() string {
	switch {
	case x.rivals != nil:
		return x.rivals.winner()
	case x.only != nil:
		return x.only.Service
	}
	return ""
}

// claimedOnlyBy reports whether no other service than the given one claims
// the address.
func (x *contest) claimedOnlyBy(service string) bool {
	if x.rivals != nil {
		return len(x.rivals.services) == 1 && x.rivals.services[service] > 0
	}
	return x.only == nil || x.only.Service == service
}

// reportWinner calls changed for the services that won or lost the address since
// was was its winner. Nothing changes for the others.
func (x *contest) reportWinner(was string, changed func(service string)) {
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

// rivals is several claims on one address, the best first. Nothing in it costs
// more than the logarithm of their number: a peer that states a hundred thousand
// claims on one address must not make this node compare each with all others.
type rivals struct {
	network  string
	live     map[*heldClaim]struct{}
	services map[string]int // how many of live are theirs
	heap     []*heldClaim   // all of live, and some that were withdrawn
}

// Len implements heap.Interface.
func (x *rivals) Len() int { return len(x.heap) }

// Less implements heap.Interface.
func (x *rivals) Less(i, j int) bool {
	return x.heap[i].better(&x.heap[j].VIPClaim, x.network) < 0
}

// Swap implements heap.Interface.
func (x *rivals) Swap(i, j int) { x.heap[i], x.heap[j] = x.heap[j], x.heap[i] }

// Push implements heap.Interface.
func (x *rivals) Push(c any) { x.heap = append(x.heap, c.(*heldClaim)) }

// Pop implements heap.Interface.
func (x *rivals) Pop() any {
	last := len(x.heap) - 1
	c := x.heap[last]
	x.heap[last] = nil
	x.heap = x.heap[:last]
	return c
}

func (x *rivals) add(c *heldClaim) {
	x.live[c] = struct{}{}
	x.services[c.Service]++
	heap.Push(x, c)
}

func (x *rivals) remove(c *heldClaim) {
	delete(x.live, c)
	if x.services[c.Service]--; x.services[c.Service] == 0 {
		delete(x.services, c.Service)
	}
	if len(x.heap) > 2*len(x.live)+16 { // mostly withdrawn claims, which no quota counts
		x.heap = slices.AppendSeq(make([]*heldClaim, 0, len(x.live)+1), maps.Keys(x.live))
		heap.Init(x)
	}
}

func (x *rivals) winner() string {
	for len(x.heap) > 0 {
		if _, ok := x.live[x.heap[0]]; ok {
			return x.heap[0].Service
		}
		heap.Pop(x)
	}
	return ""
}
