package ipvs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/lb/ipvs/genl"
)

// maxBatch is how many operations travel to the kernel together.
const maxBatch = 512

// maxRounds bounds how often an operation is sent: as guessed, as corrected by
// the kernel's answer, and again after answers were lost.
const maxRounds = 5

// carefulBatch is the size of a batch after answers were lost.
const carefulBatch = 32

// application is one call of Apply.
type application struct {
	// What is applied. The operations are the caller's.
	d   *Driver
	ctx context.Context // of the caller
	ops []lb.Op         // all of the call, in order

	// What came of it.
	errs   []error          // by operation; the caller's in the end
	failed bool             // one of errs is set
	broken map[lb.Key]error // services with a failed operation
	alien  []int            // operations that made a service which was there
	gone   int              // backends that somebody else had removed

	// What the last operation was about; the zero value: not known.
	last subject
}

// subject is what an operation is about. Operations on the backends of one
// service follow each other.
type subject struct {
	key   lb.Key
	known *lb.Service // nil: not there, as far as we know
	id    genl.ID
	named bool // id is valid: a service for all ports has a mark
}

func (a *application) subject(k lb.Key) *subject {
	if a.last.key != k || !a.last.named {
		id, named := a.d.id(k)
		a.last = subject{key: k, known: a.d.known.Services[k], id: id, named: named}
	}
	return &a.last
}

// pending is an operation on its way to the kernel.
type pending struct {
	op  int // in application.ops
	cmd genl.Command
}

// Apply implements lb.Driver. Operations travel in batches; whether a service
// or a backend is to be made or changed is a guess that the kernel corrects.
func (d *Driver) Apply(ctx context.Context, ops []lb.Op) []error {
	a := application{d: d, ctx: ctx, ops: ops, errs: make([]error, len(ops)), broken: map[lb.Key]error{}}
	if d.pools == nil || d.kernel == nil {
		for i := range ops {
			a.fail(i, errors.New("ipvs: Apply before Setup"))
		}
		return a.errs
	}
	d.removeOrphans()
	a.refuse()
	for from := 0; from < len(ops); {
		to := from + together(ops[from:])
		a.run(from, to)
		d.remember(ops[from:to], a.errs[from:to])
		a.last = subject{}
		from = to
	}
	d.removeMissing()
	a.followClosing()
	a.serve()
	a.cut()
	if a.gone > 0 {
		d.cfg.Log.Warn("put back backends that somebody else had removed", slog.Int("backends", a.gone))
	}
	if !a.failed {
		return nil
	}
	return a.errs
}

// cut ends the connections of the backends that were removed. IPVS itself drops
// one packet of each that conntrack knows, before it balances the next anew;
// what conntrack does not know is balanced at once (L5).
func (a *application) cut() {
	var gone []conntrack.Connections
	for i, op := range a.ops {
		if op.Kind == lb.DelBackend && a.errs[i] == nil {
			gone = append(gone, conntrack.Connections{Service: op.Key, Backend: op.Backend.Addr})
		}
	}
	if len(gone) == 0 {
		return
	}
	if err := a.d.pools.Cut(gone, a.d.holds); err != nil {
		a.d.cfg.Log.Warn("connections of removed backends lose a packet", slog.Any("error", err))
	}
}

// holds reports whether a service has a backend.
func (d *Driver) holds(k lb.Key, backend netip.AddrPort) bool {
	s := d.known.Services[k]
	return s != nil && slices.ContainsFunc(s.Backends, func(b lb.Backend) bool { return b.Addr == backend })
}

// remember makes known follow the operations. Labels are not the kernel's.
func (d *Driver) remember(ops []lb.Op, errs []error) {
	d.known.Apply(ops, errs)
	for i := range ops {
		if s := d.known.Services[ops[i].Key]; ops[i].Kind == lb.SetService && errs[i] == nil {
			s.Network, s.Name, s.Drain = "", "", 0 // Apply has just made it
		}
	}
}

// together returns how many of the first operations may travel in one batch:
// a removal of a service must know how the operations before it went.
func together(ops []lb.Op) int {
	if ops[0].Kind == lb.SetPool || ops[0].Kind == lb.DelPool {
		return 1
	}
	n := 1
	for n < min(len(ops), maxBatch) && ops[n].Kind != lb.SetPool && ops[n].Kind != lb.DelPool &&
		(ops[n].Kind == lb.DelService) == (ops[0].Kind == lb.DelService) {
		n++
	}
	return n
}

func (a *application) fail(i int, err error) {
	a.errs[i], a.failed = err, true
	if op := &a.ops[i]; op.Kind != lb.SetPool && op.Kind != lb.DelPool {
		a.broken[op.Key] = err
	}
}

// run carries out the operations of one batch.
func (a *application) run(from, to int) {
	if err := a.ctx.Err(); err != nil {
		for i := from; i < to; i++ {
			a.fail(i, err)
		}
		return
	}
	switch op := &a.ops[from]; op.Kind {
	case lb.SetPool:
		a.pool(from, a.d.pools.SetPool(op.Pool))
		return
	case lb.DelPool:
		a.pool(from, a.d.pools.DelPool(op.Pool.Prefix))
		return
	}
	todo := a.d.todo[:0]
	for i := from; i < to; i++ {
		if cmd, send, err := a.prepare(i); err != nil {
			a.fail(i, err)
		} else if send {
			todo = append(todo, pending{i, cmd})
		}
	}
	a.send(todo, to)
	a.reportAlien()
	a.updateMarks(from, to)
	a.d.todo = todo[:0]
}

func (a *application) pool(i int, err error) {
	if err != nil {
		a.fail(i, err)
	}
}

// prepare checks an operation and guesses its command; send is false if there
// is nothing to be done.
func (a *application) prepare(i int) (cmd genl.Command, send bool, err error) {
	op := &a.ops[i]
	about := a.subject(op.Key)
	known, named := about.known, about.named
	switch op.Kind {
	case lb.SetService:
		if !named {
			if _, ok := a.d.marks.take(op.Key); !ok {
				return 0, false, fmt.Errorf("service %s: all %d firewall marks are in use; declare its ports", op.Key,
					a.d.cfg.MarkCount)
			}
		}
		if known != nil {
			return genl.SetService, true, nil
		}
		return genl.NewService, true, nil
	case lb.DelService:
		return genl.DelService, named, a.broken[op.Key]
	case lb.DelBackend:
		return genl.DelDestination, named, nil
	case lb.SetBackend:
		return a.prepareBackend(op, known, named)
	}
	return 0, false, fmt.Errorf("ipvs: operation %s is unknown", op)
}

func (a *application) prepareBackend(op *lb.Op, known *lb.Service, named bool) (cmd genl.Command, send bool,
	err error,
) {
	switch addr := op.Backend.Addr.Addr(); {
	case !named:
		return 0, false, fmt.Errorf("%w: service %s is not there", lb.ErrDrift, op.Key)
	case addr.Is4() != op.Key.VIP.Is4():
		return 0, false, fmt.Errorf("service %s: backend %s: its address is of the other family; IPVS translates within "+
			"one family only", op.Key, op.Backend.Addr)
	case op.Backend.Weight >= 1<<31:
		return 0, false, fmt.Errorf("service %s: backend %s: weight %d; it must be below 2147483648", op.Key, op.Backend.Addr,
			op.Backend.Weight)
	}
	if known != nil {
		if _, there := known.Backend(op.Backend.Addr); there {
			return genl.SetDestination, true, nil
		}
	}
	return genl.NewDestination, true, nil
}

// send sends operations until each is done or has failed.
func (a *application) send(todo []pending, end int) {
	size := maxBatch
	for round := 0; len(todo) > 0; round++ {
		var again []pending
		lost := false
		for from := 0; from < len(todo); from += size {
			batch := todo[from:min(from+size, len(todo))]
			errs := a.d.do(a.requests(batch))
			if errs == nil {
				continue
			}
			for j, p := range batch {
				next, err := a.verdict(p, errs[j], round)
				lost = lost || errors.Is(errs[j], genl.ErrLost)
				if err != nil {
					a.fail(p.op, err)
				} else if next != 0 {
					again = append(again, pending{p.op, next})
				}
			}
		}
		if lost {
			size = carefulBatch
		}
		todo = a.withFollowers(again, end)
	}
}

// requests translates operations.
func (a *application) requests(batch []pending) []genl.Request {
	reqs := a.d.reqs[:0]
	for _, p := range batch {
		op := &a.ops[p.op]
		r := genl.Request{Command: p.cmd}
		id := a.subject(op.Key).id
		switch op.Kind {
		case lb.SetService:
			r.Service = toService(op.Service, id)
		default:
			r.Service.ID = id
			r.Destination = genl.Destination{Addr: op.Backend.Addr, Weight: op.Backend.Weight, Forward: genl.Masquerade}
		}
		reqs = append(reqs, r)
	}
	a.d.reqs = reqs
	return reqs
}

// updateMarks makes the mark map follow the services for all ports: a service
// is there before packets are marked for it, and its mark is free only when it
// is gone (L3).
func (a *application) updateMarks(from, to int) {
	set := map[lb.Key]uint32{}
	for i := from; i < to; i++ {
		op := &a.ops[i]
		if !op.Key.AllPorts() || a.errs[i] != nil {
			continue
		}
		switch op.Kind {
		case lb.SetService:
			if id, _ := a.d.id(op.Key); !a.d.parked[op.Key] {
				set[op.Key] = id.Mark
			}
		case lb.DelService:
			if err := errors.Join(a.d.pools.DelMark(op.Key), a.d.pools.DelMark(parking(op.Key))); err != nil {
				a.fail(i, err)
				continue
			}
			a.d.marks.release(op.Key)
		}
	}
	if len(set) == 0 {
		return
	}
	if err := a.d.pools.SetMarks(set); err != nil {
		for i := from; i < to; i++ {
			if op := &a.ops[i]; op.Kind == lb.SetService && a.errs[i] == nil && op.Key.AllPorts() {
				a.fail(i, err)
			}
		}
	}
}

// do sends requests within the time limit.
func (d *Driver) do(reqs []genl.Request) []error {
	var answers []error
	err := d.kernel.call(func(k kernel) error {
		answers = k.Do(reqs)
		return nil
	})
	if err == nil {
		return answers
	}
	d.reqs = nil // the stuck call may still read it, as it may write answers
	errs := make([]error, len(reqs))
	for i := range errs {
		errs[i] = err
	}
	return errs
}
