package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/coordinate"
	"github.com/hashicorp/serf/serf"

	"meshd/state"
)

// HostConfig configures a Host. Self, Bind and Log are required.
type HostConfig struct {
	Core        CoreConfig     // Self, Boot and Addr are filled from what follows
	Self        state.NodeID   // the node's unique, persistent name
	Bind        netip.AddrPort // UDP and TCP; port 0: any
	Advertise   netip.Addr     // what others dial; zero: Bind, or a private address of the host
	Profile     string         // lan (default), wan, local
	Join        []string       // seeds, HOST:PORT
	Peers       []Peer         // remembered from former lives
	SavePeers   func([]Peer)   // called from a goroutine of the host, at most once a second; or nil
	Keys        [][]byte       // 16, 24 or 32 bytes each, the primary first; none: no encryption
	Incarnation uint64         // of this life, at least 1 (S7)
	Lamport     uint64         // where the clock starts
	Limits      state.Limits
	Transport   memberlist.NodeAwareTransport // nil: sockets on Bind
	Seed        uint64                        // of the protocol's random choices; 0: random
	OnEvent     func(Event)                   // called from the host's goroutine; must not block
	Log         *slog.Logger
}

// Host runs a Core over memberlist (G1). One goroutine owns the core; others
// reach it through Do.
type Host struct {
	cfg     HostConfig
	log     *slog.Logger
	core    *Core
	clock   *lamport
	ml      *memberlist.Memberlist
	tr      *transport
	keyring *memberlist.Keyring
	coord   *coordinate.Client
	start   time.Time

	inbox            chan packet
	work             chan *work
	memberEventQueue memberQueue
	// conflicts are the name conflicts that were told, and when; the loop's.
	conflicts map[memberEvent]time.Duration
	bulk      chan Send
	calls     callTable
	joiner    joiner
	done      chan struct{}
	leaving   atomic.Bool
	wg        sync.WaitGroup // of everything that Run waits for

	endMu sync.Mutex // guards ended: nothing is added to wg afterwards
	ended bool

	panics panics

	inboxBytes, bulkBytes atomic.Int64 // that wait

	dropped, bulkDropped, bulkFailed, sendFailed, panicked atomic.Uint64
}

// lamport adapts serf's clock to state.Clock (S8).
type lamport struct{ serf.LamportClock }

func (l *lamport) Time() uint64     { return uint64(l.LamportClock.Time()) }
func (l *lamport) Tick() uint64     { return uint64(l.Increment()) }
func (l *lamport) Witness(t uint64) { l.LamportClock.Witness(serf.LamportTime(t)) }

// Queue bounds (G7): what does not fit is dropped, counted and left to repair.
const (
	inboxSize   = 8192
	bulkSize    = 512
	bulkWorkers = 8

	maxInboxBytes = 32 << 20
	maxBulkBytes  = 32 << 20
)

// NewHost opens the transport and the membership. Close the host with Run's
// context, which must be started.
func NewHost(cfg HostConfig) (*Host, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	h := &Host{
		cfg: cfg, log: cfg.Log, clock: &lamport{}, start: time.Now(), done: make(chan struct{}),
		inbox: make(chan packet, inboxSize), work: make(chan *work, 64), bulk: make(chan Send, bulkSize),
	}
	h.clock.Witness(cfg.Lamport)
	h.memberEventQueue.ready, h.conflicts = make(chan struct{}, 1), map[memberEvent]time.Duration{}
	h.calls.init()
	coord, err := coordinate.NewClient(coordinate.DefaultConfig())
	if err != nil {
		return nil, err
	}
	h.coord = coord
	h.joiner.init(h)
	if err := h.openMembership(); err != nil {
		return nil, err
	}
	return h, nil
}

func (c *HostConfig) validate() error {
	switch {
	case c.Self == "":
		return errors.New("node: a name is needed (--node NAME)")
	case len(c.Self) > state.MaxLabel:
		return fmt.Errorf("node: %q is longer than %d characters", c.Self, state.MaxLabel)
	case c.Log == nil:
		return errors.New("log: a logger is needed")
	}
	if err := state.CheckIncarnation(c.Incarnation); err != nil {
		return fmt.Errorf("incarnation: %w", err)
	}
	if err := state.CheckLamport(c.Lamport); err != nil {
		return fmt.Errorf("lamport: %w", err)
	}
	if c.Limits == (state.Limits{}) {
		c.Limits = state.DefaultLimits()
	}
	return nil
}

// openMembership creates the core and memberlist.
func (h *Host) openMembership() error {
	mc, err := profile(h.cfg.Profile, &h.cfg.Core)
	if err != nil {
		return err
	}
	h.configure(mc)
	if err := h.openKeyring(mc); err != nil {
		return err
	}
	if err := h.openTransport(mc); err != nil {
		return err
	}
	advertise, err := h.advertise(mc)
	if err != nil {
		return errors.Join(err, h.tr.Shutdown())
	}
	h.newCore(advertise)
	if h.ml, err = memberlist.Create(mc); err != nil {
		return errors.Join(fmt.Errorf("membership on %s: %w", h.cfg.Bind, err), h.tr.Shutdown())
	}
	return nil
}

func (h *Host) configure(mc *memberlist.Config) {
	mc.Name = string(h.cfg.Self)
	mc.BindAddr, mc.BindPort = h.cfg.Bind.Addr().String(), int(h.cfg.Bind.Port())
	mc.AdvertisePort = mc.BindPort
	mc.EnableCompression = false              // G1: 5.6 times the CPU for packets under 200 bytes
	mc.DeadNodeReclaimTime = time.Millisecond // a name is settled by boot ids (S7), not by who has its address longest
	mc.HandoffQueueDepth = 4096
	mc.Delegate, mc.Events, mc.Conflict, mc.Ping, mc.Alive = h, h, h, h, h
	mc.Logger = slog.NewLogLogger(levelHandler{h.log.Handler(), &logBudget{}}, slog.LevelDebug)
	mc.LogOutput = nil
}

func (h *Host) openKeyring(mc *memberlist.Config) error {
	if len(h.cfg.Keys) == 0 {
		return nil
	}
	ring, err := memberlist.NewKeyring(h.cfg.Keys, h.cfg.Keys[0])
	if err != nil {
		return fmt.Errorf("key: %w; make one with meshctl keygen", err)
	}
	h.keyring, mc.Keyring = ring, ring
	return nil
}

func (h *Host) openTransport(mc *memberlist.Config) error {
	inner := h.cfg.Transport
	if inner == nil {
		own, err := openSockets(h.cfg.Bind)
		if err != nil {
			return fmt.Errorf("bind %s: %w; %s", h.cfg.Bind, err, ListenHint(err,
				"another program, such as a meshd that runs already,"))
		}
		if mc.BindPort == 0 {
			mc.BindPort = own.port()
			mc.AdvertisePort = mc.BindPort
		}
		inner = own
	}
	var open *opener
	if h.keyring != nil {
		open = &opener{keys: h.keyring.GetKeys}
	}
	h.tr = newTransport(inner, transportConfig{
		encrypted: h.keyring != nil, opener: open, dial: mc.TCPTimeout / 2, deadline: 2 * mc.TCPTimeout,
		onStranger: h.joiner.onStranger, alone: &h.joiner.alone, onPacket: h.enqueue,
	})
	mc.Transport = h.tr
	return nil
}

// advertise settles the address that others dial.
func (h *Host) advertise(mc *memberlist.Config) (netip.AddrPort, error) {
	if h.cfg.Advertise.IsValid() {
		mc.AdvertiseAddr = h.cfg.Advertise.String()
	}
	ip, port, err := h.tr.FinalAdvertiseAddr(mc.AdvertiseAddr, mc.AdvertisePort)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("advertise: %w; bind to one address of the host, not to all", err)
	}
	mc.AdvertiseAddr, mc.AdvertisePort = ip.String(), port
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), uint16(port)), nil
}

func (h *Host) newCore(advertise netip.AddrPort) {
	seed := h.cfg.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	cc := h.cfg.Core
	cc.Self, cc.Addr = h.cfg.Self, advertise
	if cc.Boot == 0 {
		cc.Boot = state.NewBoot(time.Duration(time.Now().UnixNano()), seed)
	}
	cc.ExpectPeers = cc.ExpectPeers || len(h.cfg.Join)+len(h.cfg.Peers) > 0
	if len(h.cfg.Keys) > 0 && cc.Datagram == 0 {
		cc.Datagram = 1150 - 29 // AES-GCM's nonce, tag and version (G5)
	}
	store := state.NewStore(h.cfg.Self, h.cfg.Incarnation, h.cfg.Limits, h.clock)
	h.core = NewCore(cc, rand.New(rand.NewPCG(seed, 1)), store)
}

// Addr returns the address that others dial.
func (h *Host) Addr() netip.AddrPort { return h.core.cfg.Addr }

// Boot identifies this life of the process.
func (h *Host) Boot() uint64 { return h.core.cfg.Boot }

// Source returns the readers' side of the node's tables. Safe for concurrent use.
func (h *Host) Source() state.Source { return h.core.store }

// Lamport returns the clock's time, to be kept for the next life.
func (h *Host) Lamport() uint64 { return h.clock.Time() }

// Started is when the core's time began.
func (h *Host) Started() time.Time { return h.start }

func (h *Host) now() time.Duration { return time.Since(h.start) }

// ErrStopped is returned by calls to a host that does not run any more.
var ErrStopped = errors.New("the mesh node has stopped")

// Do runs f in the goroutine that owns the core and waits for it. f must not
// block or call Do. If Do returns an error, f has not run and never will: what
// it would have written is the caller's alone, and nothing is half done. So Do
// ends with ctx, but for the moments in which f is running. The one exception
// is ErrPanicked.
func (h *Host) Do(ctx context.Context, f func(c *Core, now time.Duration)) error {
	w := &work{f: f, finished: make(chan struct{})}
	select {
	case h.work <- w:
	case <-ctx.Done():
		return ctx.Err()
	case <-h.done:
		return ErrStopped
	}
	var err error
	select {
	case <-w.finished:
		return w.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-h.done:
		err = ErrStopped
	}
	if w.claimed.CompareAndSwap(false, true) {
		return err
	}
	<-w.finished
	return w.err
}

// work is one call of Do. Who claims it first decides: the core's goroutine runs
// it, or the caller has gone and it never runs.
type work struct {
	f        func(c *Core, now time.Duration)
	claimed  atomic.Bool
	finished chan struct{} // closed when f has returned
	err      error         // to be read when finished is closed
}

func (w *work) run(c *Core, now time.Duration) {
	if w.claimed.CompareAndSwap(false, true) {
		defer close(w.finished)
		w.err = ErrPanicked
		w.f(c, now)
		w.err = nil
	}
}

// Run runs the host until ctx ends, then leaves the membership if Leave was
// not called before. It returns when all its goroutines have ended.
func (h *Host) Run(ctx context.Context) error {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	for range bulkWorkers {
		h.wg.Go(func() { h.sendBulk(inner) })
	}
	h.wg.Go(func() { h.joiner.run(inner) })
	h.loop(ctx)
	h.endMu.Lock()
	h.ended = true
	h.endMu.Unlock()
	close(h.done)
	cancel()
	err := h.ml.Shutdown()
	h.wg.Wait()
	return err
}

// spawn runs f in a goroutine that Run waits for, unless Run has ended.
func (h *Host) spawn(f func()) bool {
	h.endMu.Lock()
	defer h.endMu.Unlock()
	if !h.ended {
		h.wg.Go(f)
	}
	return !h.ended
}

// loop owns the core.
func (h *Host) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-h.inbox:
			h.receive(p)
			h.receiveMore()
		case w := <-h.work:
			h.step("call", noPeer, func() { w.run(h.core, h.now()) })
		case <-h.memberEventQueue.ready:
			h.handleMemberEvents()
		case <-timer.C:
		}
		if now := h.now(); h.core.Next() <= now {
			h.step("tick", noPeer, func() { h.core.Tick(now) })
		}
		h.step("effects", noPeer, h.effects)
		timer.Reset(max(h.core.Next()-h.now(), 0))
	}
}

// receiveMore takes what else has arrived, up to a bound, before effects leave: under
// load, packets are handled in batches.
func (h *Host) receiveMore() {
	for range 64 {
		select {
		case p := <-h.inbox:
			h.receive(p)
		default:
			return
		}
	}
}

// effects does what the core asked for.
func (h *Host) effects() {
	sends, events := h.core.Drain()
	for _, s := range sends {
		h.send(s)
	}
	for _, e := range events {
		h.event(e)
	}
}

func (h *Host) send(s Send) {
	node := h.node(s)
	if node == nil {
		h.sendFailed.Add(1)
		return
	}
	if !s.Reliable {
		if err := h.ml.SendBestEffort(node, s.Data); err != nil {
			h.sendFailed.Add(1)
		}
		return
	}
	a, _ := netip.AddrFromSlice(node.Addr)
	s.Addr = netip.AddrPortFrom(a.Unmap(), node.Port)
	n := int64(len(s.Data))
	if h.bulkBytes.Add(n) <= maxBulkBytes {
		select {
		case h.bulk <- s:
			return
		default:
		}
	}
	h.bulkBytes.Add(-n)
	h.bulkDropped.Add(1)
}

// node says where a packet goes.
func (h *Host) node(s Send) *memberlist.Node {
	a := s.Addr
	if !a.IsValid() {
		if m := h.core.roster.members[s.To]; m != nil {
			a = m.addr
		}
	}
	if !a.IsValid() {
		return nil
	}
	return &memberlist.Node{Name: string(s.To), Addr: a.Addr().AsSlice(), Port: a.Port()}
}

// sendBulk sends over streams. Bounded by the number of workers and the
// transport's deadline.
func (h *Host) sendBulk(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-h.bulk:
			h.bulkBytes.Add(-int64(len(s.Data)))
			n := &memberlist.Node{Name: string(s.To), Addr: s.Addr.Addr().AsSlice(), Port: s.Addr.Port()}
			if err := h.ml.SendReliable(n, s.Data); err != nil {
				h.bulkFailed.Add(1)
				h.log.Debug("bulk send failed", "node", string(s.To), "bytes", len(s.Data), "error", err)
			}
		}
	}
}

func (h *Host) event(e Event) {
	switch e.Kind {
	case EventMoved:
		h.joiner.unlist(e.Node, e.Addr)
		return
	case EventRejoin:
		h.joiner.requestJoin(e.Node, e.Addr)
	case EventAlive:
		h.joiner.peerAlive(e.Addr)
	case EventLeft:
		h.joiner.forgetPeer(e.Node)
	case EventCall, EventReply:
		if h.calls.event(h, e) {
			return
		}
	}
	if h.cfg.OnEvent != nil {
		h.cfg.OnEvent(e)
	}
}

// Prepare runs f on the core before Run, from the caller's goroutine: to state
// what the node stated in its former life before any peer is heard.
func (h *Host) Prepare(f func(c *Core, now time.Duration)) { f(h.core, h.now()) }

// Keyring returns the gossip keyring, nil without encryption. It is safe for
// concurrent use.
func (h *Host) Keyring() *memberlist.Keyring { return h.keyring }
