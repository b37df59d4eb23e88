package balancing

import (
	"context"
	"fmt"
	"strings"
	"time"

	"meshd/lb"
	"meshd/mesh/control"
)

// Why says why the host's load balancer is what it is.
func (h *Host) Why() string {
	if h.cfg.Choice == "none" {
		return lbReason(h.cfg.Choice, nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := h.balancer.Status(ctx)
	if err != nil {
		return err.Error()
	}
	return lbReason(h.cfg.Choice, &s)
}

func lbReason(choice string, s *lb.Status) string {
	if choice == "none" {
		return "the configuration says lb: none"
	}
	var why []string
	for _, r := range s.Refused {
		why = append(why, r.Driver+": "+r.Reason)
	}
	switch {
	case s.Driver != "" && !s.Ready && s.Error != "":
		return "does not work now: " + s.Error
	case s.Driver != "" && len(why) > 0:
		return "works; refused before it: " + strings.Join(why, "; ")
	case s.Driver != "":
		return "works"
	case len(why) == 0:
		return "no driver for this system"
	}
	return strings.Join(why, "; ")
}

// Health sums up all balancers, the host's first.
func (h *Host) Health(ctx context.Context) []control.LBHealth {
	var all []control.LBHealth
	for _, name := range h.balancers.names() {
		b := h.balancers.get(name)
		if b == nil {
			continue
		}
		sum := control.LBHealth{Sandbox: name, Driver: "none"}
		s, err := b.Status(ctx)
		if err != nil {
			sum.Why = err.Error()
			all = append(all, sum)
			continue
		}
		c := &s.Counters
		sum.Driver, sum.Why, sum.LastError = orNone(s.Driver), lbReason(h.cfg.Choice, &s), s.Error
		sum.Services, sum.Desired, sum.Pending, sum.Draining = c.Services, c.Desired, c.Pending, c.Draining
		sum.InSync = s.Ready && c.Pending == 0
		if latest, _ := b.LastReport(); latest != nil {
			sum.LastVerify, sum.LastResult = latest.At, resultOf(latest)
			sum.InSync = sum.InSync && latest.Error == "" && unrepaired(latest) == 0
		}
		all = append(all, sum)
	}
	return all
}

func unrepaired(r *lb.Report) int {
	left := r.More
	for _, f := range r.Findings {
		if !f.Repaired {
			left++
		}
	}
	return left
}

// driftMemory is how long "meshctl status" shows what another process changed.
const driftMemory = 10 * time.Minute

// Explain adds to a status what is not well with the load balancers.
func (h *Host) Explain(s *control.Status) {
	s.Warnings = append(s.Warnings, h.forwarding()...)
	if facts, _ := h.facts.Facts(); facts.Unknown != "" && h.cfg.Choice != "none" {
		s.Degraded = append(s.Degraded,
			"the host's addresses and routes are not known, so that no VIP pool is served here; it is tried again: "+
				facts.Unknown)
	}
	for _, sum := range s.LB {
		of, in := "", ""
		if sum.Sandbox != "" {
			of, in = " of sandbox "+sum.Sandbox, "sandbox "+sum.Sandbox+": "
		}
		switch {
		case sum.Driver == "none" && h.cfg.Choice != "none":
			s.Degraded = append(s.Degraded, "no load balancer"+of+": "+sum.Why+"; vip services are answered with their tasks")
		case sum.Pending > 0:
			s.Degraded = append(s.Degraded,
				fmt.Sprintf("load balancer%s: %d services are not as they should be and are tried again: %s", of, sum.Pending,
					sum.LastError))
		case sum.LastError != "":
			s.Degraded = append(s.Degraded, "load balancer"+of+": "+sum.LastError)
		}
		b := h.balancers.get(sum.Sandbox)
		if b == nil {
			continue
		}
		if c := b.Counters(); c.Waiting > 0 {
			s.Degraded = append(s.Degraded,
				fmt.Sprintf("load balancer%s: %d services refuse connections, since all of them together have too many ports "+
					"and backends; meshctl service ls shows who has many", of, c.Waiting))
		}
		s.Degraded = append(s.Degraded, refusals(b, in)...)
		if _, drifted := b.LastReport(); drifted != nil && time.Since(drifted.At) < driftMemory {
			s.Warnings = append(s.Warnings, fmt.Sprintf("load balancing%s was changed by someone else %v ago: %s",
				of, time.Since(drifted.At).Round(time.Second), driftEvent("", *drifted).Detail))
		}
	}
}
