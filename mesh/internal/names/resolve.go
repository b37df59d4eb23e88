package names

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"meshd/mesh/control"
	"meshd/resolver"
)

// Resolve implements control.ServiceBackend.
func (s *Server) Resolve(ctx context.Context, req control.ResolveRequest) (control.Resolution, error) {
	if _, err := s.cfg.View(ctx, req.Network); err != nil {
		return control.Resolution{}, err
	}
	types := []string{req.Type}
	if _, err := netip.ParseAddr(req.Name); err == nil && req.Type == "" {
		types = []string{"PTR"}
	} else if req.Type == "" {
		types = []string{"A", "AAAA"}
	}
	out := control.Resolution{
		Name: req.Name, Network: req.Network, Type: strings.Join(types, ","), Answers: []string{},
		Steps: []control.Step{},
	}
	for _, t := range types {
		e, err := s.explain(ctx, req, t)
		if err != nil {
			return out, control.Refuse(control.CodeInvalid, "", "%v", err)
		}
		if out.RCode == "" || len(e.Answer) > 0 {
			out.RCode = e.Rcode
		}
		if out.RCode == "" {
			out.RCode = e.Outcome
		}
		out.Answers = append(out.Answers, e.Answer...)
		for i, from := range e.Steps {
			step := control.Step{Scope: e.Scope, Rule: from.Rule, Answer: []string{}, Why: from.Text}
			if i == len(e.Steps)-1 {
				step.Answer = e.Answer
			}
			if !slices.ContainsFunc(out.Steps, func(o control.Step) bool { return o.Rule == step.Rule && o.Why == step.Why }) {
				out.Steps = append(out.Steps, step)
			}
		}
	}
	out.TTL = ttlOf(out.Answers)
	return out, nil
}

// explain says how one question is answered; a trace asks the upstreams too.
func (s *Server) explain(ctx context.Context, req control.ResolveRequest, qtype string) (resolver.Explanation, error) {
	if req.Trace {
		return s.Trace(ctx, req.Network, req.Name, qtype)
	}
	return s.Explain(req.Network, req.Name, qtype)
}

// ttlOf reads the TTL of the first record in zone-file syntax.
func ttlOf(records []string) uint32 {
	for _, r := range records {
		if f := strings.Fields(r); len(f) > 1 {
			ttl, err := strconv.ParseUint(f[1], 10, 32)
			if err == nil {
				return uint32(ttl)
			}
		}
	}
	return 0
}
