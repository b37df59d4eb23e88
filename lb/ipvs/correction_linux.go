package ipvs

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/ipvs/genl"
)

// verdict says what the kernel's answer means: done (0, nil), to be sent again
// as next, or failed.
func (a *application) verdict(p pending, answer error, round int) (next genl.Command, err error) {
	if answer == nil {
		return 0, nil
	}
	op := &a.ops[p.op]
	if round < maxRounds-1 {
		if next = correction(p.cmd, answer); next != 0 {
			a.recordCorrection(p, next)
			return next, nil
		}
	}
	switch {
	case done(p.cmd, answer):
		return 0, nil
	case errors.Is(answer, genl.ErrLost), errors.Is(answer, genl.ErrMalformed):
		a.d.kernel.stuck = true // Setup opens another
		return 0, explain(op.String(), answer)
	case errors.Is(answer, lb.ErrDrift):
		return 0, fmt.Errorf("%s: %w", op, answer)
	case errors.Is(answer, unix.ESRCH):
		delete(a.d.known.Services, op.Key) // it was there when we left it
		a.last = subject{}
		return 0, fmt.Errorf("%w: service %s is gone", lb.ErrDrift, op.Key)
	case errors.Is(answer, unix.ENOENT) && (p.cmd == genl.NewService || p.cmd == genl.SetService):
		name := op.Service.Scheduler
		return 0, fmt.Errorf("service %s: scheduler %q: %w; the kernel has no module ip_vs_%s: load it or choose another "+
			"scheduler", op.Key, name, answer, name)
	case errors.Is(answer, unix.EPERM):
		return 0, explain(op.String(), answer)
	}
	if op.Kind == lb.SetBackend || op.Kind == lb.DelBackend {
		return 0, fmt.Errorf("service %s: backend %s: %w", op.Key, op.Backend.Addr, answer)
	}
	return 0, fmt.Errorf("service %s: %w", op.Key, answer)
}

// recordCorrection records what a wrong guess says about the kernel.
func (a *application) recordCorrection(p pending, next genl.Command) {
	switch {
	case p.cmd == genl.NewService && next == genl.SetService && a.d.read:
		a.alien = append(a.alien, p.op)
	case p.cmd == genl.SetDestination && next == genl.NewDestination:
		a.gone++
	}
}

// reportAlien reports services that were not there when the table was read: they
// are set now, but their backends are unknown until it is read again.
func (a *application) reportAlien() {
	for _, i := range a.alien {
		if a.errs[i] == nil {
			a.fail(i, fmt.Errorf("%w: service %s was made by somebody else", lb.ErrDrift, a.ops[i].Key))
		}
	}
	a.alien = a.alien[:0]
}

// correction returns the command to send after a wrong guess, or the same after
// a lost answer; 0 if the answer is final.
func correction(cmd genl.Command, answer error) genl.Command {
	switch {
	case errors.Is(answer, genl.ErrLost) && !errors.Is(answer, os.ErrDeadlineExceeded):
		return cmd
	case cmd == genl.NewService && errors.Is(answer, unix.EEXIST):
		return genl.SetService
	case cmd == genl.NewDestination && errors.Is(answer, unix.EEXIST):
		return genl.SetDestination
	case cmd == genl.SetDestination && errors.Is(answer, unix.ENOENT):
		return genl.NewDestination
	}
	return 0
}

// done reports whether the kernel's refusal says that nothing is left to do.
func done(cmd genl.Command, answer error) bool {
	switch cmd {
	case genl.DelService:
		return errors.Is(answer, unix.ESRCH)
	case genl.DelDestination:
		return errors.Is(answer, unix.ESRCH) || errors.Is(answer, unix.ENOENT)
	}
	return false
}

// target is what an operation changes.
type target struct {
	key     lb.Key
	backend netip.AddrPort
}

func (a *application) target(i int) target { return target{a.ops[i].Key, a.ops[i].Backend.Addr} }

// withFollowers adds the operations before end that come after one that is
// sent again and change the same: order is kept.
func (a *application) withFollowers(again []pending, end int) []pending {
	if len(again) == 0 {
		return nil
	}
	repeated, cmds := map[target]bool{}, map[int]genl.Command{}
	for _, p := range again {
		cmds[p.op] = p.cmd
	}
	var all []pending
	for i := again[0].op; i < end; i++ {
		t := a.target(i)
		if cmd, ok := cmds[i]; ok {
			repeated[t] = true
			all = append(all, pending{i, cmd})
			continue
		}
		if !repeated[t] || a.errs[i] != nil {
			continue
		}
		if cmd, send, err := a.prepare(i); err == nil && send {
			all = append(all, pending{i, cmd})
		}
	}
	return all
}
