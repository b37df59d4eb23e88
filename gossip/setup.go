package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/gossip/transport"
	"meshd/state"
)

// This file puts a host together: keys, transport, core and memberlist, in that order.

// NewHost opens the transport and the membership. The caller must start Run, whose
// context ends the host.
func NewHost(cfg HostConfig) (*Host, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	coords, err := newCoordinates(cfg.Self)
	if err != nil {
		return nil, err
	}
	h := &Host{
		cfg: cfg, log: cfg.Log, clock: &lamport{}, start: time.Now(), coords: coords, inbox: newPacketQueue(),
		work: newWorkQueue(), memberEvents: newMemberQueue(), streams: newStreamQueue(),
		conflicts: conflictLog{logged: map[memberEvent]time.Duration{}},
	}
	h.clock.Witness(cfg.Lamport)
	h.calls = newCallTable(callDeps{do: h.Do, spawn: h.tasks.spawn, panicked: h.handlerPanicked})
	h.joiner = newJoiner(&h.cfg, h.coords, &h.memberEvents, &h.leaving)
	if err := h.openMembership(); err != nil {
		return nil, err
	}
	return h, nil
}

// validate checks a configuration, and fills in the limits.
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
	if h.keyring, err = openKeyring(h.cfg.Keys); err != nil {
		return err
	}
	mc.Keyring = h.keyring
	if err := h.openTransport(mc); err != nil {
		return err
	}
	addr, err := h.advertised(mc)
	if err != nil {
		return errors.Join(err, h.transport.Shutdown())
	}
	h.core = newCoreFor(&h.cfg, addr, h.clock)
	d := &delegate{
		self: h.cfg.Self, core: h.core, joiner: h.joiner, coords: h.coords, events: &h.memberEvents, inbox: &h.inbox,
	}
	mc.Delegate, mc.Events, mc.Conflict, mc.Ping, mc.Alive = d, d, d, d, d
	h.joiner.attach(addr, h.transport.Inject, [6]byte(mc.BuildVsnArray()))
	if h.ml, err = memberlist.Create(mc); err != nil {
		return errors.Join(fmt.Errorf("membership on %s: %w", h.cfg.Bind, err), h.transport.Shutdown())
	}
	h.joiner.members = h.ml
	return nil
}

// configure sets what does not depend on the profile.
func (h *Host) configure(mc *memberlist.Config) {
	mc.Name = string(h.cfg.Self)
	mc.BindAddr, mc.BindPort = h.cfg.Bind.Addr().String(), int(h.cfg.Bind.Port())
	mc.AdvertisePort = mc.BindPort
	mc.EnableCompression = false              // G1: 5.6 times the CPU for packets under 200 bytes
	mc.DeadNodeReclaimTime = time.Millisecond // boot ids decide who has a name (S7), not who had its address longest
	mc.HandoffQueueDepth = 4096
	mc.Logger = slog.NewLogLogger(levelHandler{h.log.Handler(), &logBudget{}}, slog.LevelDebug)
	mc.LogOutput = nil
}

// openKeyring returns the keyring of some keys, nil without keys.
func openKeyring(keys [][]byte) (*memberlist.Keyring, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, fmt.Errorf("key: %w; make one with meshctl keygen", err)
	}
	return ring, nil
}

// openTransport opens the sockets, unless the configuration brings a transport, and
// puts the guard between them and memberlist.
func (h *Host) openTransport(mc *memberlist.Config) error {
	inner := h.cfg.Transport
	if inner == nil {
		own, err := transport.Open(h.cfg.Bind)
		if err != nil {
			return fmt.Errorf("bind %s: %w; %s", h.cfg.Bind, err, ListenHint(err,
				"another program, such as a meshd that runs already,"))
		}
		if mc.BindPort == 0 {
			mc.BindPort = own.Port()
			mc.AdvertisePort = mc.BindPort
		}
		inner = own
	}
	var keys func() [][]byte
	if h.keyring != nil {
		keys = h.keyring.GetKeys
	}
	h.transport = transport.New(inner, transport.Config{
		Keys: keys, OnStranger: h.joiner.onStranger, Alone: &h.joiner.alone, OnPacket: h.inbox.add,
		DialTimeout: mc.TCPTimeout / 2, StreamTimeout: 2 * mc.TCPTimeout,
	})
	mc.Transport = h.transport
	return nil
}

// advertised returns the address that others dial, and sets it for memberlist.
func (h *Host) advertised(mc *memberlist.Config) (netip.AddrPort, error) {
	if h.cfg.Advertise.IsValid() {
		mc.AdvertiseAddr = h.cfg.Advertise.String()
	}
	ip, port, err := h.transport.FinalAdvertiseAddr(mc.AdvertiseAddr, mc.AdvertisePort)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("advertise: %w; bind to one address of the host, not to all", err)
	}
	mc.AdvertiseAddr, mc.AdvertisePort = ip.String(), port
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), uint16(port)), nil
}

// The transport lets through whatever the core reads.
const _ = uint(transport.MaxMessage - maxPacket)

// encryptionOverhead is what encryption adds to a datagram, in bytes: AES-GCM's
// nonce, tag and version (G5).
const encryptionOverhead = 29

// newCoreFor returns the core of a host that others reach at addr.
func newCoreFor(cfg *HostConfig, addr netip.AddrPort, clock state.Clock) *Core {
	seed := cfg.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	cc := cfg.Core
	cc.Self, cc.Addr = cfg.Self, addr
	if cc.Boot == 0 {
		cc.Boot = state.NewBoot(time.Duration(time.Now().UnixNano()), seed)
	}
	cc.ExpectPeers = cc.ExpectPeers || len(cfg.Join)+len(cfg.Peers) > 0
	if len(cfg.Keys) > 0 && cc.Datagram == 0 {
		cc.Datagram = 1150 - encryptionOverhead
	}
	store := state.NewStore(cfg.Self, cfg.Incarnation, cfg.Limits, clock)
	return NewCore(cc, rand.New(rand.NewPCG(seed, 1)), store)
}

// OpenTransport returns what a host opens itself where HostConfig.Transport is nil, for
// a caller that dials in another way, say out of a network namespace: UDP and TCP on one
// address. A datagram for which there is no room is lost, and nothing waits. Whoever
// opened it, or the host that it was given to, ends it with Shutdown.
func OpenTransport(bind netip.AddrPort) (memberlist.NodeAwareTransport, error) {
	s, err := transport.Open(bind)
	if err != nil {
		return nil, err
	}
	return s, nil
}
