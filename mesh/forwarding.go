package mesh

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// hosting says what a balancer may do to its host.
type hosting struct {
	forward  bool                    // make it forward packets
	onSysctl func(key, value string) // told of each setting that was changed; may be nil
}

// sysctls are the settings of the host that this process changed. It is safe
// for concurrent use.
type sysctls struct {
	mu  sync.Mutex // guards all
	all []string   // as "net.ipv4.ip_forward=1"
}

func (s *sysctls) note(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) < maxSysctls {
		s.all = append(s.all, key+"="+value)
	}
}

// maxSysctls bounds the list: a host may have many interfaces.
const maxSysctls = 64

func (s *sysctls) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[:len(s.all):len(s.all)]
}

// forwarding says what was done to the host so that it forwards, or what does
// not work since it does not.
func (n *Node) forwarding() []string {
	if n.cfg.LB == "none" {
		return nil
	}
	if changed := n.sysctls.list(); len(changed) > 0 {
		return []string{fmt.Sprintf("this host forwards packets now: meshd set %s; --forwarding off leaves that to you", strings.Join(changed, ", "))}
	}
	if now, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); n.cfg.Forwarding == "off" && err == nil && strings.TrimSpace(string(now)) == "0" {
		return []string{"this host does not forward packets (forwarding: off): its containers reach VIPs only as sandboxes"}
	}
	return nil
}
