//go:build linux

package netns

// crippled is a host that keeps meshd from its work.
type crippled struct {
	name   string
	flags  []string // of its meshd
	before string   // for a shell, before meshd starts
	after  string   // when its tasks run
	subnet string   // IPv6, of the network
	code   string   // what doctor calls it
	says   string   // and what it says
	cut    bool     // a container there does not reach a VIP

	programs []string // that it takes besides those of all
}

// allOfDocker are Docker's rules of version 28, without containers of its own.
const allOfDocker = `
iptables -P FORWARD DROP
for c in DOCKER DOCKER-USER DOCKER-FORWARD DOCKER-BRIDGE DOCKER-CT DOCKER-ISOLATION-STAGE-1; do iptables -N $c; done
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -j DOCKER-FORWARD
iptables -A DOCKER-FORWARD -j DOCKER-CT
iptables -A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
iptables -A DOCKER-FORWARD -j DOCKER-BRIDGE
iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT
iptables -A DOCKER-BRIDGE -o docker0 -j DOCKER
iptables -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A DOCKER ! -i docker0 -o docker0 -j DROP`

// allOfUfw are the chains of ufw that a forwarded packet passes with its defaults.
const allOfUfw = `
iptables -P FORWARD DROP
for c in ufw-before-forward ufw-user-forward ufw-after-forward ufw-after-logging-forward ufw-reject-forward; do iptables -N $c; done
iptables -A FORWARD -j ufw-before-forward
iptables -A FORWARD -j ufw-after-forward
iptables -A FORWARD -j ufw-after-logging-forward
iptables -A FORWARD -j ufw-reject-forward
iptables -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A ufw-before-forward -p icmp --icmp-type echo-request -j ACCEPT
iptables -A ufw-before-forward -j ufw-user-forward
iptables -A ufw-after-logging-forward -m limit --limit 3/min --limit-burst 10 -j LOG`

// allOfFirewalld is the way of a forwarded packet through firewalld's table, of a
// version that does not accept whatever was translated.
const allOfFirewalld = `nft -f - <<'X'
table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		iifname "lo" accept
		jump filter_FORWARD_IN_ZONES
		ct state { invalid } drop
		reject with icmpx type admin-prohibited
	}
	chain filter_FORWARD_IN_ZONES {
		iifname "docker0" accept
		goto filter_FWDI_public
	}
	chain filter_FWDI_public {
		jump filter_FWDI_public_deny
		meta l4proto { icmp, ipv6-icmp } accept
	}
	chain filter_FWDI_public_deny { }
}
X`

// These are what many write by hand.
const (
	anInputDrop = `nft -f - <<'X'
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iif lo accept
		ip protocol icmp accept
		tcp dport { 22, 9100-9199 } accept
	}
}
X`
	aForwardDrop = `nft -f - <<'X'
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname "docker*" accept
		ip saddr 192.168.0.0/16 accept
	}
}
X`
)

func cripples() []crippled {
	leave := []string{"--forwarding", "off"}
	return []crippled{
		{name: "docker", before: allOfDocker, code: "firewall-forward", says: "FORWARD", cut: true},
		{name: "legacy", before: "iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT", code: "firewall-forward", says: "of iptables-legacy (hook forward)", cut: true, programs: []string{"iptables-legacy"}},
		{name: "docker28", before: "iptables -t raw -A PREROUTING -d 10.1.1.2/32 ! -i tasks -j DROP", code: "firewall-forward", says: "PREROUTING"},
		{name: "ufw", before: allOfUfw, code: "firewall-forward", says: "FORWARD", cut: true},
		{name: "firewalld", before: allOfFirewalld, code: "firewall-forward", says: "filter_FORWARD", cut: true},
		{name: "forward drops", before: aForwardDrop, code: "firewall-forward", says: "table inet filter (hook forward)", cut: true},
		{name: "input drops", before: anInputDrop, code: "firewall-input", says: "packets of other nodes"},
		{name: "a last rule drops", before: "nft 'add table ip own; add chain ip own last { type filter hook forward priority 300; }; add rule ip own last iifname eth0 tcp dport 443 accept; add rule ip own last counter drop'", code: "firewall-forward", says: "chain last of table ip own", cut: true},
		{name: "no hairpin", flags: leave, after: "bridge link set dev task1 hairpin off", code: "hairpin", says: "port task1"},
		{name: "no forwarding", flags: leave, before: "sysctl -w net.ipv4.ip_forward=0", code: "forwarding", says: "the host does not forward IPv4", cut: true},
		{name: "a device does not forward", before: "sysctl -w net.ipv4.conf.tasks.forwarding=0", code: "forwarding", says: "device tasks does not forward IPv4", cut: true},
		{name: "no IPv6 forwarding", flags: leave, before: "sysctl -w net.ipv6.conf.all.forwarding=0", subnet: "fd96::/64", code: "forwarding", says: "the host does not forward IPv6"},
		{name: "no IPv6", before: "sysctl -w net.ipv6.conf.lo.disable_ipv6=1", subnet: "fd96::/64", code: "ipv6-disabled", says: "IPv6 is switched off"},
		{name: "strict sources", before: "ip link add other type bridge; ip address add 10.1.1.254/24 dev other; ip link set other up; sysctl -w net.ipv4.conf.other.rp_filter=1", code: "rp-filter", says: "device other"},
	}
}
