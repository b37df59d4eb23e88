# meshd: one command per need. `make` alone lists them.

SHELL      := /bin/bash
GO         ?= go
TOOL       := $(GO) tool -modfile=tools.mod
GOLANGCI   := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
BIN        ?= bin
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS    := -s -w -X main.version=$(VERSION)

# Chaos and fuzz knobs: make chaos N=200 SEED=7, make fuzz FUZZTIME=2m
N          ?= 50
SEED       ?= 1
FUZZTIME   ?= 30s

# Packages whose tests start processes in network namespaces; they run one package at a time, without -race.
NETNS_PKGS := ./test/rig/... ./test/dataplane ./test/fleet/... ./test/netns/... ./test/documents/... ./test/chaos/... ./test/engine
# Everything else.
UNIT_PKGS   = $(shell $(GO) list ./... | grep -vE '^meshd/test/(rig|dataplane|fleet|netns|documents|dnsclients|engine|chaos|hostile|sim)(/|$$)')
# Packages with testing/synctest bubbles: their bubble tests are in files named *_bubble_test.go that carry
# `//go:build !race`, and run here without the race detector. So does the simulator: it has one goroutine.
BUBBLE_PKGS = $(sort ./test/sim $(patsubst %/,./%,$(dir $(shell git ls-files -co --exclude-standard '*_bubble_test.go'))))
# The race detector needs a C compiler.
RACE        = $(shell command -v $$($(GO) env CC) >/dev/null 2>&1 && echo -race)

.DEFAULT_GOAL := help
.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^# ---/ {gsub(/^# -+ ?| ?-+$$/,""); print "\n" $$0} /^[a-z][a-z0-9-]*:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- use it ---
.PHONY: build demo install
build: ## meshd, meshctl and the demo into ./bin (static, no C)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/... ./examples/demo

demo: ## three hosts on this machine, the whole story, step by step (KEEP=1 leaves them up; KIND=docker, ufw, strict, … has hosts of that kind)
	@$(GO) run ./examples/demo $(if $(KEEP),--keep) $(if $(KIND),--host-kind $(KIND))

install: build ## copy the binaries, the systemd unit and the manuals to their usual places, make /etc/meshd (DESTDIR= is honoured)
	install -D -m 755 $(BIN)/meshd $(DESTDIR)/usr/local/bin/meshd
	install -D -m 755 $(BIN)/meshctl $(DESTDIR)/usr/local/bin/meshctl
	install -D -m 644 examples/systemd/meshd.service $(DESTDIR)/etc/systemd/system/meshd.service
	install -d -m 755 $(DESTDIR)/usr/local/share/doc/meshd
	install -m 644 docs/OPERATIONS.md docs/API.md docs/DESIGN.md examples/systemd/meshd.yaml $(DESTDIR)/usr/local/share/doc/meshd
	install -d -m 700 $(DESTDIR)/etc/meshd

# --- test it ---
.PHONY: test unit bubble netns dns-clients fuzz chaos cover
test: unit bubble netns dns-clients ## all tests: unit and property (with -race), bubbles, processes in namespaces (about 12 minutes on two cores)

unit: ## unit and property tests, with the race detector where a C compiler is present
	$(GO) test $(GOTESTFLAGS) $(RACE) -shuffle=on $(UNIT_PKGS)

bubble: ## tests in virtual time: the simulator and testing/synctest bubbles, without -race
	$(GO) test $(GOTESTFLAGS) -timeout 25m -shuffle=on $(BUBBLE_PKGS)

netns: ## real processes in network namespaces: as root, or where user namespaces are allowed; skips itself elsewhere
	$(GO) test $(GOTESTFLAGS) -p 1 -timeout 240s $(NETNS_PKGS)

.PHONY: dataplane-kinds demo-kinds
dataplane-kinds: ## every behaviour of connections on every kind of host: Docker, ufw, firewalld, … (make netns has those that depend on the host; KIND=ufw for one)
	$(GO) test $(GOTESTFLAGS) -count=1 -timeout 30m -run 'TestKinds/$(or $(KIND),.*)' ./test/dataplane -args -every

demo-kinds: ## the demo on every kind of host whose programs are here, one after the other
	@set -e; for kind in $$($(GO) run ./examples/demo --host-kinds); do \
	  echo "=== hosts: $$kind"; $(GO) run ./examples/demo --host-kind $$kind; done

dns-clients: ## the resolvers of glibc, musl, Go, c-ares, Node and unbound against meshd: a table (those installed; .ci/run installs all)
	@set -o pipefail; $(GO) test -count=1 -v -timeout 240s ./test/dnsclients | { grep -v '^=== ' || true; }

# Kinds of hosts there: their programs, which the machine does not have, run here, and
# what they wrote is loaded there.
KINDS      := $(BIN)/hostkinds
XTABLES    := $(patsubst %/,%,$(firstword $(wildcard /usr/lib/*/xtables/)))
KIND_VM     = -modules +$(KIND_MODULES) -m 2048 -tools ip,nft,ipvsadm,ping,conntrack,sh,sleep,echo,bridge,iptables,iptables-restore,ip6tables,ip6tables-restore,cat \
  -file /hostkinds=$(abspath $(KINDS)) $(if $(XTABLES),-file $(XTABLES)=$(XTABLES)) -env MESHD_HOSTKINDS=/hostkinds \
  -file /etc/protocols=/etc/protocols -file /etc/services=/etc/services
KIND_MODULES := br_netfilter,nft_compat,x_tables,ip_tables,ip6_tables,xt_conntrack,xt_addrtype,xt_MASQUERADE,xt_comment,xt_limit,xt_LOG,xt_hl,xt_multiport,xt_tcpudp,xt_recent,xt_nat,ipt_REJECT,ip6t_REJECT,ip6t_rt,nf_log_syslog
.PHONY: kinds-vm kinds-saved
kinds-saved: ## what Docker, ufw, firewalld, … write on hosts here, into bin/hostkinds, for kinds-vm
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/hostkind-save ./test/hostkind/save
	@rm -rf $(KINDS) && mkdir -p $(KINDS) && $(BIN)/hostkind-save $(abspath $(KINDS))

kinds-vm: vm-build kinds-saved ## behaviours of connections with IPVS on every kind of host, there (KIND=ufw for one, VMFLAGS='-kernel DIR' for another kernel)
	@$(BIN)/vm test $(KIND_VM) -run 'TestKinds/$(or $(KIND),.*)/ipvs' $(VMFLAGS) ./test/dataplane

.PHONY: kinds-vm-some
kinds-vm-some: vm-build kinds-saved ## of these what make vm has: two kinds, and a kernel that was started without IPv6
	@$(BIN)/vm test $(KIND_VM) -run 'TestKinds/(debian|ufw)/ipvs' $(VMFLAGS) ./test/dataplane
	@$(BIN)/vm test $(KIND_VM) -append ipv6.disable=1 -run 'TestKinds/no-ipv6/ipvs' $(VMFLAGS) ./test/dataplane

# What needs a kernel that the machine at hand may not have; without -race.
VM_PKGS    := ./lb/nft/... ./lb/ipvs/... ./lb/internal/pool ./lb/internal/conntrack ./lb/sysctl $(addprefix ./,$(wildcard test/dataplane)) ./test/rig/...
.PHONY: vm vm-tests netns-vm verify-vm demo-vm vm-rig vm-build
vm: vm-rig vm-tests kinds-vm-some netns-vm demo-vm ## what needs IPVS, on a Debian kernel in an emulated machine (no root, no KVM): tests, then the demo

vm-tests: vm-build ## only the tests of make vm (VMFLAGS='-run NAME'; bin/vm test -h lists the flags)
	@$(BIN)/vm test -skip TestKinds $(VMFLAGS) $(VM_PKGS)

# meshd and meshctl as they lie in the machine, which has no Go.
VM_MESHD    = -file /usr/local/bin/meshd=$(abspath $(BIN))/meshd -file /usr/local/bin/meshctl=$(abspath $(BIN))/meshctl
netns-vm: build vm-build ## the tests with real meshd there, with IPVS on every host and in every sandbox (VMFLAGS='-run NAME')
	@MESHD_BIN=/usr/local/bin $(BIN)/vm test $(VMFLAGS) -tools ip,nft,ipvsadm,sh,sleep,echo,dig,curl,cat,ping,test,unshare,mount,mkdir,nsenter,sysctl,getent $(VM_MESHD) ./test/netns

verify-vm: ## of those only the one where IPVS is changed by hand with ipvsadm: meshctl lb verify, meshd cleanup
	@$(MAKE) -s netns-vm VMFLAGS='-run TestLBVerifyAndCleanup'

demo-vm: build vm-build ## the demo there, with IPVS; what ipvsadm says must be what the mesh says
	@MESHD_BIN=/usr/local/bin $(BIN)/vm run -icount -tools ip,ipvsadm $(VM_MESHD) $(BIN)/demo -lb ipvs

vm-rig: ## tests of that machine itself: timeouts, panics, hangs
	$(GO) test -count=1 $(GOTESTFLAGS) ./test/vm -machines

vm-build: ## its command line, bin/vm; docs/TESTING.md tells what it can do
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/vm ./test/vm/cmd/vm

fuzz: ## each fuzz target for FUZZTIME (30s)
	@set -e; grep -rlE '^func Fuzz' --include='*_test.go' . | sort | while read -r f; do \
	  for t in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' $$f); do \
	    echo "== $$(dirname $$f) $$t"; $(GO) test -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZTIME) $$(dirname $$f); done; done

chaos: ## simulated clusters under random faults: N runs from seed SEED; a failing seed is printed and repeats exactly
	$(GO) test -count=1 -timeout 0 -run 'TestChaos$$' ./test/sim -args -n $(N) -seed $(SEED)

.PHONY: hostile hostile-soak
hostile: ## what would end or bend a host, done to real daemons: a line per case (CASES=pool,count for those only)
	@set -o pipefail; $(GO) test -count=1 -v -timeout 600s ./test/hostile -args $(if $(CASES),-only $(CASES),-every) | grep -a -E '^(hostile |ok |FAIL|panic:|---.*FAIL|    --- FAIL)|_test.go:'

hostile-soak: ## the same by a holder of the key in random order, for SECONDS (120) from seed SEED, with a change of keys; then nothing of it may be left
	@set -o pipefail; $(GO) test -count=1 -v -timeout $$(( $(SECONDS) + 600 ))s -run 'TestSoak$$' ./test/hostile -args -soak $(SECONDS) -seed $(SEED) | grep -a -E '^(soak |ok |FAIL|panic:|---.*FAIL)|_test.go:'

.PHONY: chaos-real
SECONDS    := $(if $(filter command line,$(origin SECONDS)),$(SECONDS),120)
chaos-real: ## real processes under random faults for SECONDS (120) from seed SEED, HOSTS (5) of them
	$(GO) test -count=1 -v -timeout $$(( $(SECONDS) + 300 ))s -run TestChaosReal ./test/chaos -args -seconds $(SECONDS) -seed $(SEED) $(if $(HOSTS),-hosts $(HOSTS))

cover: ## coverage of every package by every unit test, as a table and coverage.html
	$(GO) test -coverprofile=coverage.out -coverpkg=./... $(UNIT_PKGS) >/dev/null
	$(GO) tool cover -func=coverage.out | tail -1
	$(GO) tool cover -html=coverage.out -o coverage.html

# --- measure it ---
# One target per row of the table of numbers in docs/DESIGN.md: bench-NAME, each with its own `##` line.
.PHONY: bench
bench: ## Go benchmarks of every package, in benchstat's format
	$(GO) test -run '^$$' -bench . -benchmem $(UNIT_PKGS)

.PHONY: bench-table
bench-table: ## the replicated table: heap per endpoint, deltas applied, one change, hot lookups
	$(GO) run ./test/bench/table

.PHONY: bench-health
bench-health: ## health checks of one host: processor time of 5,000, and from a failing answer to the verdict
	$(GO) test -run '^$$' -bench Checks -benchtime 1x ./mesh/internal/checker

.PHONY: bench-converge bench-burst bench-cold bench-churn bench-heal bench-idle bench-join bench-scale bench-wide bench-members
bench-converge: ## simulated: one change until visible on all nodes (BENCHFLAGS='-quick nodes=25' for less)
	$(GO) run ./test/bench converge $(BENCHFLAGS)

bench-burst: ## simulated: many changes at once until all tables are equal
	$(GO) run ./test/bench burst $(BENCHFLAGS)

bench-cold: ## simulated: all nodes start at once with their endpoints
	$(GO) run ./test/bench cold $(BENCHFLAGS)

bench-churn: ## simulated: changes at a constant rate, time until visible
	$(GO) run ./test/bench churn $(BENCHFLAGS)

bench-heal: ## simulated: a partition with changes on both sides, until equal
	$(GO) run ./test/bench heal $(BENCHFLAGS)

bench-idle: ## simulated: bytes and CPU time per node when nothing changes
	$(GO) run ./test/bench idle $(BENCHFLAGS)

bench-join: ## simulated: a node joins a mesh with many endpoints
	$(GO) run ./test/bench join $(BENCHFLAGS)

bench-wide: ## simulated: up to 1,000 nodes in 100 networks: processor time at rest, and of a node that joins
	$(GO) run ./test/bench wide $(BENCHFLAGS)

bench-members: ## what others cost one core as they are listed, come, go and are there, up to 100,000, and in many networks
	$(GO) run ./test/bench members $(BENCHFLAGS)

.PHONY: bench-verify
bench-verify: ## simulated: deaths reported, true and false: packets to the suspect, who hides it (BENCHFLAGS='nodes=100')
	$(GO) run ./test/bench verify $(BENCHFLAGS)

bench-scale: ## simulated: up to 10,000 nodes, and how each figure grows
	$(GO) run ./test/bench scale $(BENCHFLAGS)

.PHONY: bench-membership
bench-membership: ## whole nodes that nobody told of each other, in a bubble: mass start, a tenth lost, all restarted, beside a hostile peer (NODES=100; OPS=start,tenth_lost)
	@cd test/sim && $(GO) test -count=1 -run 'TestScale$$' -timeout 6h -args -scale $(or $(NODES),100) $(if $(OPS),-ops $(OPS)) | grep -v '^PASS\|^ok'

.PHONY: bench-detect
bench-detect: ## whole nodes in a bubble: crashes until noticed, false alarms (15 minutes; ONLY=lan25-5 for one line)
	@cd test/sim && $(GO) test -count=1 -run BenchDetect -timeout 2h -args -detect $(if $(ONLY),-only $(ONLY)) | grep -v '^PASS\|^ok'

.PHONY: bench-real
bench-real: ## 25 real meshd in network namespaces on this machine: one change until all have told of it (NODES=100: start, churn, a tenth killed, a partition too)
	$(GO) run ./test/bench/real $(if $(NODES),-nodes $(NODES) -all) $(BENCHFLAGS)

.PHONY: bench-drift
bench-drift: ## a real meshd: what others remove from the kernel until it is back; storms of such changes
	$(GO) run ./test/bench/drift $(BENCHFLAGS)

.PHONY: bench-lb
PARTS      ?= nft request ipvs
bench-lb: vm-build ## kernel load balancers: cold load, one change, verify; requests through a VIP (PARTS='nft request ipvs')
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/bench-lb ./test/bench/lb
	@$(if $(filter-out ipvs,$(PARTS)),$(BIN)/bench-lb $(BENCHFLAGS) $(filter-out ipvs,$(PARTS)))
	@$(if $(filter ipvs,$(PARTS)),$(BIN)/vm run -icount -timeout 60m $(BIN)/bench-lb -instructions $(BENCHFLAGS) ipvs)

.PHONY: bench-dns coredns
bench-dns: ## DNS servers beside a bare UDP echo, each on one processor, in turns (BENCHFLAGS='-urgent' on a busy machine)
	@$(GO) build -trimpath -o $(BIN)/bench-dns ./test/bench/dns
	$(BIN)/bench-dns -coredns $(BIN)/coredns $(BENCHFLAGS)

coredns: ## CoreDNS into ./bin, in a module of its own: another server for make bench-dns
	@dir=$$(mktemp -d) && cd $$dir && $(GO) mod init coredns-build >/dev/null 2>&1 && $(GO) get github.com/coredns/coredns@v1.14.0 && \
	 $(GO) build -ldflags '-s -w' -o $(abspath $(BIN))/coredns github.com/coredns/coredns; rm -rf $$dir

.PHONY: bench-peers
bench-peers: ## NetworkDB in the network of our simulator (PEERS='converge nodes=25' for some lines only)
	cd test/peers && $(GO) run . $(PEERS)

# --- keep it tidy ---
.PHONY: fmt lint golangci cross clean
fmt: ## format every file
	$(TOOL) gofumpt -extra=group_params -w $$(git ls-files -co --exclude-standard '*.go')

lint: ## format, vet, modern idioms, staticcheck, import arrows
	@out=$$($(TOOL) gofumpt -extra=group_params -l $$(git ls-files -co --exclude-standard '*.go')); \
	 if [ -n "$$out" ]; then echo "not formatted (make fmt):"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) fix -diff ./...
	$(TOOL) staticcheck -checks all,-ST1000 ./...
	$(GO) test -count=1 ./test

golangci: ## the longer list of .golangci.yml (builds golangci-lint once per machine: 2 CPU minutes)
	$(GOLANGCI) run ./...

cross: ## everything type-checks for darwin, meshctl builds for windows
	GOOS=darwin $(GO) vet ./...
	GOOS=windows $(GO) build -o /dev/null ./cmd/meshctl

clean: ## remove what make made
	rm -rf $(BIN) dist coverage.out coverage.html
