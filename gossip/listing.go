package gossip

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"meshd/gossip/transport"
	"meshd/state"
)

// This file makes memberlist list a node that answers and is not listed, without an
// exchange of the whole membership.
//
// memberlist sends the news of a node as often as the number of nodes that it knows at
// that moment suggests. Where a thousand start at once, that is too rarely for all: what
// is left over it exchanges after half a minute or more. The core finds those nodes much
// sooner, since their streams come with the tables, and asks each where it is. A dial of
// each would be a whole membership each way per pair of nodes: 72 MB per node at 1,000.
// So the joiner gives memberlist the message that such a node is alive, as the node
// itself would send it at its start. What memberlist takes for dead it does not believe
// so, and a dial follows as before.

// wish is a node to be listed where it answers.
type wish struct {
	id    state.NodeID // "": it is not known which node
	after time.Time    // not dialled before; the zero Time: at once
}

// answered is a node that answered a nonce at an address: memberlist is to be told.
type answered struct {
	id state.NodeID
	at netip.AddrPort
}

const (
	// firstIncarnation is the one with which memberlist starts. A node that has a
	// higher one says so itself.
	firstIncarnation = 1

	announceInterval = 5 * time.Millisecond  // while memberlist takes no more
	announcePatience = 50 * time.Millisecond // for memberlist to list a node that it was told of

	// A node that is back is news, which spreads among more nodes in more time. That
	// each of them dials it would be many exchanges for nothing.

	newsFrom    = 32                     // listed nodes; fewer dial at once
	newsLeast   = 500 * time.Millisecond // that a dial waits otherwise,
	newsPerNode = 2 * time.Millisecond   // besides for each node that is listed,
	newsMost    = 2 * time.Second        // and in all at most
)

// requestListed asks that the membership lists a node that answered a nonce at an
// address: it is told so, and dialled if that does not help.
func (j *joiner) requestListed(id state.NodeID, a netip.AddrPort) {
	j.mu.Lock()
	j.lastAnswer = time.Now()
	if j.addWanted(id, a, max(j.newsTime(), announcePatience)) && len(j.unannounced) < maxWanted {
		j.unannounced = append(j.unannounced, answered{id, a})
	}
	j.mu.Unlock()
	j.wakeUp()
}

// newsTime is how long a dial of a node that is known by name waits for its news to
// arrive. The caller holds mu.
func (j *joiner) newsTime() time.Duration {
	n := len(j.listed)
	if n < newsFrom {
		return 0
	}
	d := min(newsLeast+time.Duration(n)*newsPerNode, newsMost)
	return d/2 + rand.N(d/2)
}

// announceAnswered gives memberlist the messages that are due, and returns in how long there
// are more.
func (j *joiner) announceAnswered() (again time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, n := range j.unannounced {
		if j.listed[n.id].IsValid() {
			continue
		}
		if !j.inject(transport.AliveMessage(string(n.id), n.at, firstIncarnation, j.versions)) {
			j.unannounced = j.unannounced[i:]
			return announceInterval
		}
		j.announced++
	}
	j.unannounced = nil
	return rejoinInterval
}
