package gossip

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"meshd/gossip/transport"
	"meshd/state"
)

// This file owns the life of a host: one goroutine that owns the core, gives it what
// arrives, and carries out what it asks for. How a host is put together is setup.go's.

// HostConfig configures a Host. Self, Bind, Incarnation and Log are required.
type HostConfig struct {
	// The node.

	Self        state.NodeID // its unique, persistent name
	Incarnation uint64       // of this life, at least 1 (S7)
	Lamport     uint64       // where its clock starts
	Core        CoreConfig   // Self, Boot, Addr and ExpectPeers are filled in from the other fields
	Limits      state.Limits // of its tables; the zero Limits: state.DefaultLimits
	Seed        uint64       // of the protocol's random choices; 0: a random one

	// The network.

	Bind      netip.AddrPort                // UDP and TCP; port 0: any
	Advertise netip.Addr                    // what others dial; the zero Addr: Bind, or a private address of the host
	Profile   string                        // lan (default), wan or local
	Keys      [][]byte                      // 16, 24 or 32 bytes each, the primary first; none: no encryption
	Transport memberlist.NodeAwareTransport // nil: sockets on Bind

	// Whom to join.

	Join  []string // seeds, HOST:PORT
	Peers []Peer   // remembered from former lives
	// SavePeers keeps what changed of the peers since the last call that returned no error,
	// or, without changes, all peers. all returns them, the changes included. It is called
	// from a goroutine of the host, once a round of its loop at most, and waited for; nil:
	// nothing is kept.
	SavePeers func(changes []PeerChange, all func() []Peer) error

	// What it reports.

	OnEvent func(Event)  // called from the host's goroutine; must not block; or nil
	Log     *slog.Logger // never nil
}

// Host runs a Core over memberlist (G1). One goroutine, in Run, owns the core; others
// reach it through Do. The methods are safe for concurrent use, but for Prepare.
type Host struct {
	// Fixed by NewHost.

	cfg       HostConfig             // of Join, joiner has the current list
	log       *slog.Logger           // cfg.Log
	core      *Core                  // the loop's, once Run has begun
	clock     *lamport               // of the store (S8)
	start     time.Time              // when the core's time began
	ml        *memberlist.Memberlist // the membership (G1)
	transport *transport.Transport   // what memberlist sends and receives through
	keyring   *memberlist.Keyring    // nil without encryption
	coords    *coordinates           // where nodes are in terms of round trip times

	// What the loop takes in.

	inbox        packetQueue // packets of peers
	work         workQueue   // functions of Do
	memberEvents memberQueue // news of the membership

	// What carries out what the core asks for.

	streams    streamQueue   // packets that go over streams
	calls      *callTable    // requests between hosts
	joiner     *joiner       // joins
	conflicts  conflictLog   // name conflicts that were logged; the loop's
	sendFailed atomic.Uint64 // packets that could not be sent

	// Its end.

	leaving atomic.Bool // Leave was called
	tasks   tasks       // goroutines that Run waits for
	panics  panics      // steps that panicked
}

// lamport adapts serf's clock to state.Clock (S8).
type lamport struct{ serf.LamportClock }

// Time implements state.Clock.
func (l *lamport) Time() uint64 { return uint64(l.LamportClock.Time()) }

// Tick implements state.Clock.
func (l *lamport) Tick() uint64 { return uint64(l.Increment()) }

// Witness implements state.Clock.
func (l *lamport) Witness(t uint64) { l.LamportClock.Witness(serf.LamportTime(t)) }

// ErrStopped is returned by calls to a host that does not run any more.
var ErrStopped = errors.New("the mesh node has stopped")

// Run runs the host until ctx ends, and then ends the membership; a host that is to
// leave in order calls Leave before. Run returns when all goroutines of the host have
// ended.
func (h *Host) Run(ctx context.Context) error {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	for range streamWorkers {
		h.tasks.spawn(func() { h.streams.run(inner, h.ml, h.log) })
	}
	h.tasks.spawn(func() { h.joiner.run(inner) })
	h.loop(ctx)
	h.tasks.end()
	h.work.end()
	cancel()
	err := h.ml.Shutdown()
	h.tasks.wait()
	return err
}

// loop owns the core.
func (h *Host) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-h.inbox.packets:
			h.receive(p)
			h.receiveMore()
		case w := <-h.work.queue:
			h.step("call", noPeer, func() { w.run(h.core, h.now()) })
		case <-h.memberEvents.ready:
			h.handleMemberEvents()
		case <-timer.C:
		}
		if now := h.now(); h.core.Next() <= now {
			h.step("tick", noPeer, func() { h.core.Tick(now) })
		}
		h.step("effects", noPeer, h.applyEffects)
		timer.Reset(max(h.core.Next()-h.now(), 0))
	}
}

// receive gives the core one packet.
func (h *Host) receive(p packet) {
	h.inbox.taken(p)
	h.step("packet", func() state.NodeID {
		head, _, err := decodeHead(p.data)
		if err != nil {
			return ""
		}
		return head.from
	}, func() { h.core.ReceiveFrom(h.now(), p.from, p.data) })
}

// receiveMore takes what else has arrived, up to a bound, before effects leave: under
// load, packets are handled in batches.
func (h *Host) receiveMore() {
	for range 64 {
		select {
		case p := <-h.inbox.packets:
			h.receive(p)
		default:
			return
		}
	}
}

// step runs one step of the loop, and survives its panic (G12).
//
// Going on is better than ending: a peer that found one packet that panics would end
// every node of the mesh with it, again after each restart. The packet is dropped, as
// if it had been lost. What the step had half done cannot spread: a stream changes in
// one place, after all checks, and recoverStep finds the streams that do not have the
// content that their heads say; those are asked for as a whole. What else the core
// keeps is a cache of the streams, or a timer.
func (h *Host) step(kind string, from func() state.NodeID, f func()) {
	defer func() {
		if r := recover(); r != nil {
			wrong := h.core.recoverStep(h.now())
			if e, due := h.panics.report(h.log, kind, from(), r, "streams_to_ask_for", wrong); due {
				h.handleEvent(e)
			}
		}
	}()
	f()
}

// noPeer names the peer whose packet caused a step that no packet caused.
func noPeer() state.NodeID { return "" }

// applyEffects does what the core asked for.
func (h *Host) applyEffects() {
	for range 2 { // a beacon that the core asks for has effects of its own
		sends, events := h.core.Drain()
		for _, s := range sends {
			h.send(s)
		}
		for _, e := range events {
			h.handleEvent(e)
		}
	}
}

// send puts one packet on its way.
func (h *Host) send(s Send) {
	if !s.Addr.IsValid() {
		s.Addr = h.core.roster.addrOf(s.To)
	}
	if !s.Addr.IsValid() {
		h.sendFailed.Add(1)
		return
	}
	if s.Reliable {
		h.streams.add(s)
		return
	}
	if err := h.ml.SendBestEffort(destination(s), s.Data); err != nil {
		h.sendFailed.Add(1)
	}
}

// destination is where memberlist sends a packet, whose address must be valid.
func destination(s Send) *memberlist.Node {
	return &memberlist.Node{Name: string(s.To), Addr: s.Addr.Addr().AsSlice(), Port: s.Addr.Port()}
}

// handleEvent acts on an event of the core, and passes it to the layer above unless it
// is the host's own.
func (h *Host) handleEvent(e Event) {
	switch e.Kind {
	case EventMoved:
		h.joiner.unlist(e.Node, e.Addr)
		return
	case EventBeacon:
		if e.Node == h.cfg.Self {
			h.writeBeacon()
			return
		}
	case EventRejoin:
		if h.core.answeredAt(e.Node, e.Addr) {
			h.joiner.requestListed(e.Node, e.Addr)
		} else {
			h.joiner.requestJoin(e.Node, e.Addr)
		}
	case EventAlive:
		h.joiner.peerAlive(e.Addr)
	case EventLeft:
		h.joiner.forgetPeer(e.Node)
	case EventCall, EventReply:
		h.calls.receive(e)
		return
	}
	if h.cfg.OnEvent != nil {
		h.cfg.OnEvent(e)
	}
}

// writeBeacon writes the beacon that the core asks for: the core has no wall clock. What
// a node wrote after its goodbye would bring it back.
func (h *Host) writeBeacon() {
	if h.core.Left() || h.core.Yielded() {
		return
	}
	stamp := time.Duration(time.Now().UnixNano())
	beacon := state.Change{Kind: state.KindBeacon, Body: string(state.AppendBeacon(nil, stamp))}
	if err := h.core.Commit(h.now(), "", []state.Change{beacon}); err != nil {
		h.log.Error("a beacon could not be written", "error", err)
	}
}

// Prepare runs f on the core before Run, from the caller's goroutine: to write what the
// node stated in its former life before any peer is heard.
func (h *Host) Prepare(f func(c *Core, now time.Duration)) { f(h.core, h.now()) }

// Addr returns the address that others dial.
func (h *Host) Addr() netip.AddrPort { return h.core.cfg.Addr }

// Boot identifies this life of the process.
func (h *Host) Boot() uint64 { return h.core.cfg.Boot }

// Source returns the readers' side of the node's tables.
func (h *Host) Source() state.Source { return h.core.store }

// Lamport returns the clock's time, to be kept for the next life.
func (h *Host) Lamport() uint64 { return h.clock.Time() }

// Started is when the core's time began.
func (h *Host) Started() time.Time { return h.start }

// Keyring returns the gossip keyring, nil without encryption. It is safe for
// concurrent use.
func (h *Host) Keyring() *memberlist.Keyring { return h.keyring }

// now is the core's time.
func (h *Host) now() time.Duration { return time.Since(h.start) }
