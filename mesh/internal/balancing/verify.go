package balancing

import (
	"context"
	"errors"
	"fmt"

	"meshd/lb"
	"meshd/mesh/control"
)

// VerifyLB implements control.ServiceBackend. Balancers are compared one after
// the other: each holds up its own changes only while it is read.
func (h *Host) VerifyLB(ctx context.Context, req control.LBVerifyRequest) (control.LBVerifyReply, error) {
	names := h.balancers.names()
	if req.Sandbox != "" || req.Host {
		names = []string{req.Sandbox}
	}
	reply := control.LBVerifyReply{InSync: true, Reports: []control.LBReport{}}
	for _, name := range names {
		b, err := h.balancerOf(name)
		if err != nil && req.Sandbox == "" {
			continue // detached meanwhile
		}
		if err != nil {
			return reply, err
		}
		r, err := b.Verify(ctx, !req.ReportOnly)
		switch {
		case errors.Is(err, lb.ErrStopped) && name != "" && req.Sandbox == "":
			continue // detached meanwhile
		case errors.Is(err, lb.ErrStopped):
			return reply, control.Refuse(control.CodeUnavailable, "", "the load balancer has stopped")
		case err != nil:
			return reply, fmt.Errorf("compare the load balancer with the kernel: %w", err)
		}
		report := reportOf(name, &r)
		reply.InSync = reply.InSync && report.Result == control.LBInSync
		reply.Reports = append(reply.Reports, report)
	}
	return reply, nil
}

// reportOf describes a comparison.
func reportOf(sandbox string, r *lb.Report) control.LBReport {
	out := control.LBReport{
		Sandbox: sandbox, Driver: orNone(r.Driver), At: r.At, TookMillis: float64(r.Took.Microseconds()) / 1000,
		Result: resultOf(r), Full: r.Full, Services: r.Services, Backends: r.Backends, Pending: r.Pending,
		Found: len(r.Findings) + r.More, Differences: []control.LBDifference{}, Error: r.Error,
	}
	for _, f := range r.Findings {
		if f.Repaired {
			out.Repaired++
		}
		out.Differences = append(out.Differences, control.LBDifference{
			Area: string(f.Area), Kind: string(f.Kind), What: f.What, Found: f.Found, Want: f.Want, Repaired: f.Repaired,
			Outcome: f.Outcome,
		})
	}
	return out
}

func resultOf(r *lb.Report) string {
	switch {
	case r.Error != "":
		return control.LBFailed
	case len(r.Findings) > 0:
		return control.LBDrift
	case r.Pending > 0:
		return control.LBBehind
	}
	return control.LBInSync
}

// driftEvent returns the event about what another process changed.
func driftEvent(sandbox string, r lb.Report) control.Event {
	repaired := 0
	for _, f := range r.Findings {
		if f.Repaired {
			repaired++
		}
	}
	detail := fmt.Sprintf("%d differences, %d repaired; first: %s", len(r.Findings)+r.More, repaired, r.Findings[0])
	if sandbox != "" {
		detail = "sandbox " + sandbox + ": " + detail
	}
	return control.Event{Type: control.EventLBDrift, Detail: detail}
}
