package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/lb/internal/conntrack"
	"meshd/lb/internal/pool"
	"meshd/lb/nftconn"
)

// Driver implements lb.Driver with nftables. It is used by one goroutine at a
// time.
type Driver struct {
	cfg Config

	// What it works with, of the namespace; nil until it is opened.
	base  *pool.Base
	conn  *nftconn.Conn
	flows *conntrack.Kernel

	// What it has written.
	layout  *layout
	entries map[lb.Key]*entry
	classes map[class]int  // class chains in the kernel and how many services use each
	cut     *conntrack.Set // connections to delete after the next successful Apply
}

// entry is what the driver has written for one service.
type entry struct {
	svc      *lb.Service
	there    bool  // the service has its element
	class    class // zero: nothing to pick from
	slots    []netip.AddrPort
	settings storedSettings
	idle     []netip.AddrPort             // backends without slots that had no connections when those were last counted
	quiet    map[netip.AddrPort]time.Time // backends with weight 0, and since when they are not picked
}

// New returns the driver. It opens nothing before Probe or Setup.
func New(cfg Config) (*Driver, error) {
	if cfg.Log == nil {
		return nil, errors.New("nft: Log: missing; pass a slog.Logger")
	}
	return &Driver{cfg: cfg, layout: newLayout(), entries: map[lb.Key]*entry{}, classes: map[class]int{}}, nil
}

// RunsAs implements lb.Imitator: nftables counts no connections, and hashes the
// client's address.
func (d *Driver) RunsAs(s *lb.Service) string {
	if hashed(s) {
		return "sh"
	}
	return "wrr"
}

// Name implements lb.Driver.
func (d *Driver) Name() string { return "nft" }

// Probe implements lb.Driver: it builds the whole layout under other names in
// one transaction together with its removal, so that nothing is left behind.
func (d *Driver) Probe(context.Context) error {
	conn, err := nftconn.Open(nftconn.Config{NetNS: d.cfg.NetNS, Listener: d.cfg.Listener})
	if err != nil {
		return err
	}
	defer conn.Close()
	trial := newLayout()
	trial.table.Name = "meshd_probe"
	if err := trial.add(conn.Nftables); err != nil {
		return err
	}
	for i := range nftconn.Families {
		err := errors.Join(
			trial.addClass(conn.Nftables, class{family: i, slots: 2}),
			trial.addClass(conn.Nftables, class{family: i, slots: 2, hash: true, all: true}))
		if err != nil {
			return fmt.Errorf("encode probe: %w", err)
		}
	}
	conn.Nftables.DelTable(trial.table)
	err = conn.Nftables.Flush()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: kernel has no nf_tables nat with numgen, jhash and fib (%w); load nft_chain_nat, nft_nat, "+
			"nft_numgen, nft_hash, nft_fib_inet",
			lb.ErrUnsupported, err)
	}
	return nftconn.Explain("probe nftables", err)
}

// Setup implements lb.Driver. The maps of a previous run stay as they are; the
// rules around them are replaced in one transaction. Maps of another version's
// shape cannot be kept: then the table is replaced, in one transaction too.
func (d *Driver) Setup(context.Context) error {
	if err := d.open(); err != nil {
		return err
	}
	if err := d.base.Setup(); err != nil {
		return err
	}
	err := d.addLayout(false)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
		d.cfg.Log.Warn("nftables table has another layout; replacing it", slog.String("table", serviceTable),
			slog.Any("error", err))
		err = d.addLayout(true)
	}
	if err != nil {
		return nftconn.Explain("make table "+serviceTable, err)
	}
	return d.layout.book.Read(d.conn, baseChains()...)
}

func (d *Driver) addLayout(replace bool) error {
	c := d.conn.Nftables
	if replace {
		c.AddTable(d.layout.table)
		c.DelTable(d.layout.table)
	}
	if err := d.layout.add(c); err != nil {
		return err
	}
	if !replace {
		for cl := range d.classes { // somebody else may have changed them
			if err := d.layout.addClass(c, cl); err != nil {
				return err
			}
		}
	}
	return d.conn.Commit()
}

// Apply implements lb.Driver. Each service changes in one transaction; many
// services share one, and if it fails, halves of it are tried.
func (d *Driver) Apply(ctx context.Context, ops []lb.Op) []error {
	if d.base == nil {
		return fail(ops, nil, errors.New("nft: Apply before Setup"), func(lb.Op) bool { return true })
	}
	errs := d.pools(ops, lb.SetPool, func(op lb.Op) error { return d.base.SetPool(op.Pool) }, nil)
	next, keys := d.next(ops)
	for i, err := range next.Apply(ops, nil) {
		if err != nil {
			errs = fail(ops[i:i+1], errs, err, func(lb.Op) bool { return true })
		}
	}
	d.cut = &conntrack.Set{}
	for batch := range slices.Chunk(keys, servicesPerBatch) {
		for k, err := range d.commit(ctx, batch, next) {
			errs = fail(ops, errs, err, func(op lb.Op) bool {
				return op.Kind < lb.DelPool && op.Kind > lb.SetPool &&
					op.Key == k
			})
		}
	}
	if err := d.cut.Delete(d.flows, d.holds); err != nil {
		d.cfg.Log.Warn("connections of removed backends stay until they time out", slog.Any("error", err))
	}
	return d.pools(ops, lb.DelPool, func(op lb.Op) error { return d.base.DelPool(op.Pool.Prefix) }, errs)
}

// pools carries out the pool operations of one kind.
func (d *Driver) pools(ops []lb.Op, kind lb.OpKind, do func(lb.Op) error, errs []error) []error {
	for i := range ops {
		if ops[i].Kind != kind {
			continue
		}
		if err := do(ops[i]); err != nil {
			if errs == nil {
				errs = make([]error, len(ops))
			}
			errs[i] = err
		}
	}
	return errs
}

// fail sets the error of the operations that match.
func fail(ops []lb.Op, errs []error, err error, match func(lb.Op) bool) []error {
	if errs == nil {
		errs = make([]error, len(ops))
	}
	for i, op := range ops {
		if match(op) {
			errs[i] = err
		}
	}
	return errs
}

// next returns a table with the services that ops touch, and their keys in
// order of first mention.
func (d *Driver) next(ops []lb.Op) (*lb.Table, []lb.Key) {
	t := lb.NewTable()
	seen := map[lb.Key]bool{}
	var keys []lb.Key
	for _, op := range ops {
		if op.Kind == lb.SetPool || op.Kind == lb.DelPool || seen[op.Key] {
			continue
		}
		seen[op.Key] = true
		keys = append(keys, op.Key)
		if e := d.entries[op.Key]; e != nil {
			t.Services[op.Key] = e.svc
		}
	}
	return t, keys
}

// servicesPerBatch bounds a transaction. Each costs the kernel a grace period.
const servicesPerBatch = 2000

// commit writes the services of keys as they are in next. It returns the
// services that could not be written.
func (d *Driver) commit(ctx context.Context, keys []lb.Key, next *lb.Table) map[lb.Key]error {
	if err := ctx.Err(); err != nil {
		return allFailed(keys, err)
	}
	tx := d.newTransaction()
	for _, k := range keys {
		tx.plan(k, next.Services[k])
	}
	err := tx.run()
	switch {
	case err == nil:
		tx.keep()
		return nil
	case len(keys) == 1 || errors.Is(err, unix.EPERM):
		return allFailed(keys, nftconn.Explain("write services", err))
	}
	failed := map[lb.Key]error{}
	for half := range slices.Chunk(keys, (len(keys)+1)/2) {
		maps.Copy(failed, d.commit(ctx, half, next))
	}
	return failed
}

func allFailed(keys []lb.Key, err error) map[lb.Key]error {
	failed := make(map[lb.Key]error, len(keys))
	for _, k := range keys {
		failed[k] = err
	}
	return failed
}

// Close implements lb.Driver.
func (d *Driver) Close() error {
	if d.base == nil {
		return nil
	}
	err := d.base.Close()
	d.base, d.conn, d.flows = nil, nil, nil
	return err
}
