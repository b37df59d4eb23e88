package mesh_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"meshd/mesh/config"
	"meshd/mesh/control"
)

// upstream answers every question with one address, or, if it is to loop, by
// asking the node whose address loopTo returns.
func upstream(t *testing.T, loopTo func() string) string {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: p, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if loopTo != nil {
			if r, err := dns.Exchange(q, loopTo()); err == nil {
				_ = w.WriteMsg(r)
			}
			return
		}
		r := new(dns.Msg).SetReply(q)
		a, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.1")
		r.Answer = append(r.Answer, a)
		_ = w.WriteMsg(r)
	})}
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	go func() { _ = s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = s.Shutdown() })
	return p.LocalAddr().String()
}

func (n *node) metricsText() string {
	var b strings.Builder
	n.must(n.Metrics(n.t.Context(), &b))
	return b.String()
}

// R7 from configuration to metrics: upstreams by domain, a trace, what is counted.
func TestForwarding(t *testing.T) {
	up := upstream(t, nil)
	a := start(t, config.Config{
		Node: "a", DNS: []string{"127.0.0.1:0"},
		Upstream: []string{"127.0.0.1:9", "corp.example=" + up}, QueryLog: 1,
	})
	a.network("net", "10.90.0.0/24")
	s, err := a.Status(t.Context())
	a.must(err)
	r, err := dns.Exchange(new(dns.Msg).SetQuestion("www.corp.example.", dns.TypeA), s.DNS[0])
	if err != nil || len(r.Answer) != 1 {
		t.Fatal(r, err)
	}
	a.task("net", "web", "w1", "10.0.0.1")
	res, err := a.Resolve(t.Context(), control.ResolveRequest{
		Network: "net", Name: "www.corp.example", Type: "A",
		Trace: true,
	})
	a.must(err)
	if text := fmt.Sprint(res.Steps); !strings.Contains(text, up+" (up)") || !strings.Contains(text, "a fresh answer") ||
		len(res.Answers) != 1 {
		t.Errorf("%+v", res)
	}
	res, err = a.Resolve(t.Context(), control.ResolveRequest{Network: "net", Name: "10.0.0.1"})
	a.must(err)
	if len(res.Answers) != 1 || !strings.HasSuffix(res.Answers[0], " PTR web.w1.net.mesh.internal.") {
		t.Errorf("%+v", res)
	}
	text := a.metricsText()
	for _, want := range []string{
		`meshd_dns_queries_total{outcome="forwarded",proto="udp",type="A"} 1`,
		`meshd_dns_query_duration_seconds_count{outcome="forwarded",proto="udp",type="A"} 1`,
		`meshd_dns_upstream_duration_seconds_count{result="noerror"} 2`,
		`meshd_dns_upstream_up{domain="corp.example",state="up",upstream="` + up + `"} 1`,
		"meshd_dns_cache_entries 1", "meshd_dns_held_total", "meshd_dns_upstream_loops_total",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// R7.8: a loop is told of in the status and the metrics.
func TestLoopIsTold(t *testing.T) {
	addr := make(chan string, 1)
	up := upstream(t, sync.OnceValue(func() string { return <-addr }))
	a := start(t, config.Config{Node: "a", DNS: []string{"127.0.0.1:0"}, Upstream: []string{up}})
	s, err := a.Status(t.Context())
	a.must(err)
	addr <- s.DNS[0]
	eventually(t, func() error {
		s, err := a.Status(t.Context())
		if err == nil && !strings.Contains(strings.Join(s.Degraded, " "),
			"upstream "+up+" sends this node's questions back") {
			err = fmt.Errorf("degraded: %v", s.Degraded)
		}
		return err
	})
	text := a.metricsText()
	for _, want := range []string{"meshd_degraded 1", `meshd_dns_upstream_up{domain="",state="looping",upstream="` + up +
		`"} 0`} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// S8: the TTL that a task was registered with is that of its service's answers,
// on every node, and stays when a later task says nothing of it.
func TestServiceTTL(t *testing.T) {
	a := start(t, config.Config{Node: "a"})
	a.network("net", "10.90.0.0/24")
	b := start(t, config.Config{Node: "b", Join: []string{a.addr()}})
	eventually(t, func() error { _, err := b.Network(t.Context(), "net"); return err })
	_, err := a.AddTask(t.Context(), control.AddTask{
		Network: "net", Service: "web", ID: "w1", IPs: []string{"10.0.0.1"},
		SetService: control.SetService{TTL: "42s"},
	})
	a.must(err)
	b.task("net", "web", "w2", "10.0.0.2")
	shown(t, 42, a, b)
	ref := control.ServiceRef{Network: "net", Name: "web"}
	s, err := b.SetService(t.Context(), ref, control.SetService{TTL: "7s"})
	if err != nil || s.TTL != 7 {
		t.Error(s, err)
	}
	shown(t, 7, a, b)
	_, err = a.SetService(t.Context(), ref, control.SetService{TTL: "default"})
	a.must(err)
	shown(t, 0, a, b)
	b.task("net", "other", "o1", "10.0.0.3")
	eventually(t, func() error {
		_, err := a.Service(t.Context(), control.ServiceRef{Network: "net", Name: "other"})
		return err
	})
	_, err = a.SetService(t.Context(), control.ServiceRef{Network: "net", Name: "other"}, control.SetService{TTL: "7s"})
	if err == nil || !strings.Contains(fmt.Sprintf("%+v", err), "no task of service") {
		t.Errorf("a service of another node: %v", err)
	}
}

// shown waits until every node shows the TTL of web, and answers with it; 0 is
// the nodes' own.
func shown(t *testing.T, ttl int64, nodes ...*node) {
	t.Helper()
	answered := uint32(ttl)
	if ttl == 0 {
		answered = 5
	}
	for _, n := range nodes {
		eventually(t, func() error {
			s, err := n.Service(t.Context(), control.ServiceRef{Network: "net", Name: "web"})
			if err != nil || s.TTL != ttl || s.Tasks.Serving != 2 {
				return errors.Join(err, fmt.Errorf("on %s: %+v", n.cfg.Node, s.Service))
			}
			r, err := n.Resolve(t.Context(), control.ResolveRequest{Network: "net", Name: "web", Type: "A"})
			if err == nil && r.TTL != answered {
				err = fmt.Errorf("on %s: %+v", n.cfg.Node, r)
			}
			return err
		})
	}
}
