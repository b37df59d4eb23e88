package dataplane

import (
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"meshd/lb"
	"meshd/test/rig"
)

// worldsAtOnce is how many worlds are tested at a time unless -parallel says so:
// mostly they wait for the kernel.
const worldsAtOnce = "4"

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", worldsAtOnce); err != nil {
		panic(err)
	}
	os.Exit(rig.TestMain(nil, m.Run))
}

// behaviour is one thing that every driver must do.
type behaviour struct {
	name string
	run  func(*stage)
}

// behaviours in the order of docs/OPERATIONS.md.
var behaviours = []behaviour{
	{"connections spread evenly from everywhere", spreadsEvenly},
	{"a weight is a share of connections", weighs},
	{"every scheduler spreads connections evenly", schedules},
	{"every scheduler honours weights", schedulesByWeight},
	{"sh sends a client back to the same backend", hashesClients},
	{"mh sends a client's port back to the same backend", hashesPorts},
	{"sh and mh use every backend", hashesEverywhere},
	{"affinity keeps a client with its backend", sticks},
	{"affinity ends when the client was away for long enough", sticksForAWhile},
	{"affinity leaves a drained backend", sticksToLiveOnes},
	{"a service for all ports balances every port", balancesAllPorts},
	{"a service for all ports works beside somebody's marks, which stay", leavesMarks},
	{"a packet to a service for all ports has somebody's mark behind the balancer, too, and goes where it leads", keepsMarks},
	{"a backend can be the host itself", servesOnHost},
	{"backends see the documented source address", masquerades},
	{"a VIP answers ping", answersPing},
	{"a segment of a backend beyond the client's window costs nobody the connection", survivesStrays},
	{"a datagram larger than a packet arrives, also the first", carriesLargeDatagrams},
	{"a service without backends refuses at once and recovers", refusesWithoutBackends},
	{"forty connections at once to a service without backends are all refused, and none asks twice", refusesMany},
	{"ports of the host are not reachable through a VIP", guards},
	{"draining keeps connections and gets no new ones", drains},
	{"a drain that ends cuts what is left", cuts},
	{"a backend that comes back during its drain keeps its connections", undrains},
	{"UDP leaves a removed backend with the next datagram", movesUDP},
	{"UDP to a service for all ports leaves a backend at once, while TCP drains", drainsUDPOfAllPorts},
	{"a task without ports is at all of them, beside one that declares some", mixesPorts},
	{"a service for all ports that declares some keeps its connections, also over a restart of the daemon", declaresPorts},
	{"a service that is removed refuses, also what was connected", removesServices},
	{"two addresses of one service work at once, and one can go", movesVIPs},
	{"a service changes its port", changesPort},
	{"tasks get connections at the ports that they declare, and change them one by one without a lost connection", changesPortTaskByTask},
	{"a port of the VIP leads to the port at which each task listens, also to several at one address", leadsToTargets},
	{"a task in the network of the host listens at another port than its service", leadsToTargetOfHost},
	{"of two tasks at one address one goes: what it has drains, and the other one is not touched", drainsTarget},
	{"UDP leaves one of two tasks at one address with the next datagram", movesUDPOfTarget},
	{"a client stays with one of several tasks at one address", sticksToTarget},
	{"a task changes the port at which it listens without a lost connection", changesTarget},
	{"the last task of a family goes: what is connected drains, and the other family is not touched", losesAFamily},
	{"a pool is removed, and another one stays", removesPools},
	{"a restart of the daemon changes nothing and drops nothing", restarts},
	{"a kill -9 of the daemon changes nothing and drops nothing", survivesKill},
	{"a daemon that dies in the middle of a change leaves what the next one can finish", diesMidway},
	{"changes after a restart drop nothing that stays", changesAfterRestart},
	{"idle connections past the timeout survive with hashing by port", survivesIdle},
	{"idle connections past the timeout are reset with round robin", resetsIdle},
	{"what belongs to others stays", leavesForeigners},
	{"the daemon follows the views", follows},
	{"the daemon drains until the last connection ends", drainsUntilIdle},
	{"the daemon drains until the deadline", drainsUntilDeadline},
	{"a drain goes on over a restart of the daemon", drainsOverRestart},
	{"the daemon takes a task back that drains, without a dropped connection", daemonUndrains},
	{"the daemon restarts without a change and without a dropped connection", daemonRestarts},
	{"the daemon serves both addresses of a service that moves", daemonMoves},
}

// long are more of them, which take long and do not depend on where clients are.
var long = []behaviour{
	{"10,000 services with 10 backends load, change and verify", scales},
	{"what is changed by hand is repaired within a verify period, and reported", repairs},
}

// limit is what a driver cannot do, and why.
type limit struct {
	world, behaviour string // world "": every driver
	part             string // of the behaviour: "sed UDP"; "": all of it
	why              string
	kinds            string // of hosts where it is so, by name; "": everywhere
}

const whyBridged = "br_netfilter makes one packet of it, and forgets how large the pieces were"

// limits are all exceptions. docs/OPERATIONS.md has them too.
var limits = []limit{
	{"nft", "affinity ends when the client was away for long enough", "", "a hash of the client's address has no end", ""},
	{"ipvs", "every scheduler spreads connections evenly", "sed UDP", "IPVS counts no UDP connection as active", ""},
	{"ipvs", "every scheduler spreads connections evenly", "nq UDP", "IPVS counts no UDP connection as active", ""},
	{"ipvs", "every scheduler honours weights", "sed UDP", "IPVS counts no UDP connection as active", ""},
	{"ipvs", "a datagram larger than a packet arrives, also the first", "the host itself over IPv6", "IPVS takes an IPv6 datagram that is too large from the own host for one that must not be cut", ""},
	{"ipvs", "one port of a client leads to one backend through two services at once", "", "it finds what an answer belongs to by client and backend only", ""},
	{"fake", "a service for all ports works beside somebody's marks, which stay", "", "its kernel has no marks", ""},
	{"fake", "a packet to a service for all ports has somebody's mark behind the balancer, too, and goes where it leads", "", "its kernel has no marks", ""},
	{"fake", "what belongs to others stays", "", "its kernel holds nothing else", ""},
	{"ipvs", "a datagram larger than a packet arrives, also the first", "a container over IPv6", whyBridged, "bridged docker beside-docker"},
	{"ipvs", "a datagram larger than a packet arrives, also the first", "a backend that asks its own VIP over IPv6", whyBridged, "bridged docker beside-docker"},
	{"nft", "connections spread evenly from everywhere", "the time until meshd has compared", "it loads the turn of each service as it was when it was saved, and stays there", "restored"},
	{"", "the daemon follows the views", "names in a network that has an IPv6 pool", "they resolve to the tasks there", "no-ipv6"},
	{"", "the last task of a family goes: what is connected drains, and the other family is not touched", "", "there is one family only", "no-ipv6"},
	{"", "a pool is removed, and another one stays", "", "the other one is of IPv6", "no-ipv6"},
}

// on reports whether a limit is one of a kind of host.
func (l *limit) on(kind string) bool { return slices.Contains(strings.Fields(l.kinds), kind) }

// skipLimit skips the test of a behaviour, or of a part of it, that is beyond
// the driver, or beyond it on the host.
func skipLimit(t *testing.T, w world, behaviour, part string) {
	t.Helper()
	for _, l := range limits {
		here := l.kinds == "" || l.on(w.kindOfHost())
		if here && (l.world == "" || l.world == w.name()) && l.behaviour == behaviour && l.part == part {
			t.Skip("limit of " + w.name() + ": " + l.why)
		}
	}
}

// TestConformance tests the drivers on hosts that are prepared for it.
func TestConformance(t *testing.T) {
	behaviours := slices.Concat(behaviours, reported)
	all := slices.Concat(behaviours, long)
	in := func(name string, make func(*testing.T) world, behaviours []behaviour) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conform(t, make(t), behaviours)
		})
	}
	in("fake", func(*testing.T) world { return newFakeWorld() }, all)
	in("nft", func(t *testing.T) world { return &nftWorld{newKernel(t, false)} }, all)
	in("ipvs", func(t *testing.T) world { return &ipvsWorld{newKernel(t, false)} }, all)
	in("nft in a container", func(t *testing.T) world { return &nftWorld{newKernel(t, true)} }, behaviours)
	in("ipvs in a container", func(t *testing.T) world { return &ipvsWorld{newKernel(t, true)} }, behaviours)
}

// needs skips a world whose driver does not work here.
func needs(t *testing.T, w world) {
	t.Helper()
	err := w.newDriver(t, &logBook{}).Probe(t.Context())
	switch {
	case errors.Is(err, lb.ErrUnsupported) && w.name() == "ipvs":
		t.Skipf("%v; runs in make vm", err)
	case errors.Is(err, lb.ErrUnsupported):
		t.Skipf("%v", err)
	case err != nil:
		t.Fatal(err)
	}
}

func conform(t *testing.T, w world, behaviours []behaviour) {
	needs(t, w)
	vips := 0
	for _, b := range behaviours {
		t.Run(b.name, func(t *testing.T) {
			skipLimit(t, w, b.name, "")
			b.run(newStage(t, w, b.name, &vips))
		})
	}
}
