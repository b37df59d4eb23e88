//go:build linux

package dnsclients

// This file owns the restart of a daemon under questions.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meshd/test/fleet"
	"meshd/test/rig"
)

// TestRestartDeniesNothing kills a daemon and starts it again while its clients
// go on asking (R4): until it has heard from its peers again it may keep them
// waiting, but must not deny a name.
func TestRestartDeniesNothing(t *testing.T) {
	_, nodes := fleet.Up(t, 3)
	n := nodes[0]
	_, err := n.Ctl("network", "create", "collabnet", "--subnet", "10.96.0.0/16")
	must(t, err)
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		for _, n := range nodes {
			if all, err := n.API.Networks(ctx); err != nil || len(all) != 1 {
				return fmt.Errorf("%s knows networks %v, %w", n.Host.Name, all, err)
			}
		}
		return nil
	})
	from, err := n.Run(t.Context(), fleet.Spec{Network: "collabnet", Service: "client", Slot: 1, ID: "client1"})
	must(t, err)
	for i, o := range nodes[1:] {
		_, err := o.Run(t.Context(), fleet.Spec{
			Network: "collabnet", Service: "web", Slot: i + 1,
			ID: fmt.Sprintf("web%d", i+1),
		})
		must(t, err)
	}
	names := []string{"web.", "tasks.web.", "web.collabnet.", "tasks.web.collabnet.mesh.internal."}
	fleet.Within(t, 10*time.Second, func(ctx context.Context) error {
		for _, name := range names {
			if r, err := askOnce(ctx, from, name); err != nil || len(r.Answer) == 0 {
				return fmt.Errorf("%s: %v, %w", name, r, err)
			}
		}
		return nil
	})
	for range 3 {
		knowsPeers(t, n, nodes[1:])
		n.Proc.Kill()
		answered := make(chan error, len(names))
		for _, name := range names {
			go func() { answered <- untilAnswered(t.Context(), from, name) }()
		}
		must(t, n.Start(t.Context()))
		for range names {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
	}
}

// knowsPeers waits until the node has its peers on disk: it has no seeds,
// so after a restart it knows only from there that it is not alone.
func knowsPeers(t *testing.T, n *fleet.Node, peers []*fleet.Node) {
	t.Helper()
	fleet.Within(t, 15*time.Second, func(context.Context) error {
		b, err := os.ReadFile(filepath.Join(n.DataDir, "peers.json"))
		log, _ := os.ReadFile(filepath.Join(n.DataDir, "peers.log")) // what changed since
		b = append(b, log...)
		for _, p := range peers {
			if err == nil && !strings.Contains(string(b), p.Host.Name) {
				err = fmt.Errorf("%s does not have %s on disk: %s", n.Host.Name, p.Host.Name, b)
			}
		}
		return err
	})
}

// untilAnswered asks over and over until there is an answer. What comes before
// must be silence.
func untilAnswered(ctx context.Context, from *fleet.Task, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var denied error
	err := rig.Poll(ctx, func() error {
		r, err := askOnce(ctx, from, name)
		if err != nil {
			return err
		}
		if len(r.Answer) == 0 {
			denied = fmt.Errorf("%s: %s without an answer after a restart", name, dns.RcodeToString[r.Rcode])
		}
		return nil
	})
	if denied != nil {
		return denied
	}
	return err
}

// askOnce sends one question to the task's name server.
func askOnce(ctx context.Context, from *fleet.Task, name string) (*dns.Msg, error) {
	conn, err := from.Dial(ctx, "udp", from.DNS().String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := dns.Client{Timeout: 3 * time.Second}
	r, _, err := c.ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeA), &dns.Conn{Conn: conn})
	return r, err
}
