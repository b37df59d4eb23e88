package hostread

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"meshd/lb/hostcheck"
)

// maxFile bounds in bytes what is read of a file.
const maxFile = 1 << 20

// readFile returns the beginning of a file without spaces around it; empty: it cannot
// be read.
func readFile(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxFile))
	return strings.TrimSpace(string(b))
}

// sysctl returns the value of a setting below net.
func sysctl(key string) string { return readFile(filepath.Join("/proc/sys/net", key)) }

// switchOf reads the value of a setting that is on or off.
func switchOf(value string) hostcheck.Switch {
	switch value {
	case "":
		return hostcheck.Unknown
	case "0":
		return hostcheck.Off
	}
	return hostcheck.On
}

// settings reads the kernel's settings, of the host and of the devices in f.
func settings(f *hostcheck.Facts) {
	f.BridgeFilter4 = sysctl("bridge/bridge-nf-call-iptables") == "1"
	f.BridgeFilter6 = sysctl("bridge/bridge-nf-call-ip6tables") == "1"
	f.Forward4, f.Forward6 = switchOf(sysctl("ipv4/ip_forward")), switchOf(sysctl("ipv6/conf/all/forwarding"))
	f.Connections, _ = strconv.Atoi(sysctl("netfilter/nf_conntrack_count"))
	f.MaxConnections, _ = strconv.Atoi(sysctl("netfilter/nf_conntrack_max"))
	f.NetNSReadOnly = netnsReadOnly()
	strict := sysctl("ipv4/conf/all/rp_filter")
	for i := range f.Devices {
		d := &f.Devices[i]
		if len(d.Prefixes) == 0 {
			continue // a port of a bridge, of which there may be hundreds
		}
		d.Forward4, d.Forward6 = switchOf(sysctl("ipv4/conf/"+d.Name+"/forwarding")),
			switchOf(sysctl("ipv6/conf/"+d.Name+"/forwarding"))
		d.Force6 = switchOf(sysctl("ipv6/conf/" + d.Name + "/force_forwarding"))
		d.NoIPv6 = sysctl("ipv6/conf/"+d.Name+"/disable_ipv6") == "1"
		d.Strict = max(strict, sysctl("ipv4/conf/"+d.Name+"/rp_filter")) == "1" // the higher one counts
	}
}

// netnsReadOnly reports whether the systemd unit of this process, if it runs in one,
// keeps it from writing to /etc/netns.
func netnsReadOnly() bool {
	if os.Getenv("INVOCATION_ID") == "" {
		return false
	}
	var s unix.Statfs_t
	if unix.Statfs("/etc/netns", &s) != nil && unix.Statfs("/etc", &s) != nil {
		return false
	}
	return s.Flags&unix.ST_RDONLY != 0
}

// maxServices bounds what is kept of IPVS's table.
const maxServices = 1 << 16

// ipvs returns the addresses that IPVS balances, whoever made the services.
func ipvs() (all []netip.AddrPort) {
	for line := range strings.Lines(readFile("/proc/thread-self/net/ip_vs")) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "TCP" && words[0] != "UDP" || len(all) >= maxServices {
			continue
		}
		if at, ok := hexAddrPort(words[1]); ok {
			all = append(all, at)
		}
	}
	return all
}

// hexAddrPort reads "0A600001:0050" or "[fd96:0000:…:0001]:0050".
func hexAddrPort(s string) (at netip.AddrPort, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return at, false
	}
	port, err := hex.DecodeString(s[i+1:])
	if err != nil || len(port) != 2 {
		return at, false
	}
	a, err := netip.ParseAddr(strings.Trim(s[:i], "[]"))
	if b, bad := hex.DecodeString(s[:i]); bad == nil {
		if v4, fits := netip.AddrFromSlice(b); fits {
			a, err = v4, nil
		}
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port)), err == nil
}

// schedulers returns for each scheduler of IPVS whether the kernel has it loaded or
// its module is on disk, below a root directory. Without a list of modules the result
// is nil: nothing is known.
func schedulers(root string, names []string) map[string]bool {
	if len(names) == 0 {
		return nil
	}
	release := readFile("/proc/sys/kernel/osrelease")
	modules := readFile(filepath.Join(root, "lib/modules", release, "modules.dep")) +
		readFile(filepath.Join(root, "lib/modules", release, "modules.builtin"))
	if modules == "" {
		return nil
	}
	there := map[string]bool{}
	for _, name := range names {
		_, err := os.Stat(filepath.Join(root, "sys/module/ip_vs_"+name)) // loaded, from wherever
		there[name] = err == nil || strings.Contains(modules, "/ip_vs_"+name+".ko")
	}
	return there
}
