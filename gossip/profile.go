package gossip

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
)

// This file owns the times of memberlist, and those of the core that go with them.

// profile returns memberlist's configuration for a kind of network, and sets the
// times of the core that go with it.
//
// A crash is noticed in three steps: a node's probe fails (memberlist), the
// suspicion is not refuted in time (memberlist: SuspicionMult · log10(nodes) ·
// ProbeInterval, whether others confirm it or not), and pings of the core,
// direct and through others, are not answered either (Silence minus the
// suspicion, at least VerifyFor). Faster means that a host which stands still,
// starved of CPU, is hidden sooner: one that is back within Silence is never
// hidden, and one that is not gets no new connections from then on until it
// answers again, which takes milliseconds. After a false
// alarm the next report of a host is checked for the whole of Silence, so that one
// which stands still over and over is not hidden each time. Lost packets do not hide a node:
// memberlist alone does that a few times per minute at 25 % loss, and the pings
// of the core find out that it lives.
//
//   - lan: probes every 200 ms, about 0.7 KB/s per node; a crash is noticed in
//     about 2.2 s by 25 nodes and by 100, p99 below 3 s.
//   - wan: probes every second, for links of up to 300 ms; about 9 s, p99 13 s.
//   - local: like lan with shorter connection time-outs, for one machine.
//
// make bench-detect measures all three.
func profile(name string, core *CoreConfig) (*memberlist.Config, error) {
	var mc *memberlist.Config
	switch name {
	case "", "lan":
		mc = memberlist.DefaultLANConfig()
		mc.TCPTimeout = 3 * time.Second
		mc.PushPullInterval = 15 * time.Second
		fast(mc, core)
	case "local":
		mc = memberlist.DefaultLocalConfig()
		mc.TCPTimeout = time.Second
		mc.IndirectChecks = 3
		fast(mc, core)
	case "wan":
		mc = memberlist.DefaultWANConfig()
		mc.ProbeInterval, mc.ProbeTimeout = time.Second, 600*time.Millisecond
		mc.SuspicionMult, mc.SuspicionMaxTimeoutMult = 4, 1
		mc.GossipInterval = 300 * time.Millisecond
		mc.PushPullInterval = 30 * time.Second
		mc.TCPTimeout = 10 * time.Second
		setDefault(&core.VerifyFor, 1500*time.Millisecond)
		setDefault(&core.WantTimeout, time.Second)
	default:
		return nil, fmt.Errorf("profile %q: use lan, wan or local", name)
	}
	setDefault(&core.Probing, mc.ProbeInterval)
	setDefault(&core.Suspicion, time.Duration(mc.SuspicionMult)*mc.ProbeInterval)
	return mc, nil
}

// fast sets what lan and local share.
func fast(mc *memberlist.Config, core *CoreConfig) {
	mc.ProbeInterval, mc.ProbeTimeout = 200*time.Millisecond, 100*time.Millisecond
	mc.SuspicionMult, mc.SuspicionMaxTimeoutMult = 3, 1
	mc.GossipInterval = 100 * time.Millisecond
	setDefault(&core.Silence, 1800*time.Millisecond)
}
