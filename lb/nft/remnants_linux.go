package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"

	"meshd/lb"
	"meshd/lb/internal/pool"
	"meshd/lb/nftconn"
)

// open opens the sockets if they are not open.
func (d *Driver) open() error {
	if d.base != nil {
		return nil
	}
	base, err := pool.New(d.cfg)
	if err == nil {
		d.base, d.conn, d.flows = base, base.Conn(), base.Flows()
	}
	return err
}

// Remnants implements lb.Driver.
func (d *Driver) Remnants(context.Context) ([]lb.Remnant, error) {
	if err := d.open(); err != nil {
		return nil, err
	}
	left, err := d.base.Remnants()
	if err != nil {
		return left, err
	}
	there, err := d.conn.HasTable(d.layout.table)
	if err != nil || !there {
		return left, err
	}
	services := 0
	for i := range d.layout.maps {
		for _, set := range []*nftables.Set{d.layout.maps[i].svc, d.layout.maps[i].all} {
			elems, err := d.conn.Elements(set)
			if err != nil {
				return left, err
			}
			services += len(elems)
		}
	}
	left = append(left, lb.Remnant{
		Area: lb.AreaTable, What: nftconn.TableText(d.layout.table),
		Detail: fmt.Sprintf("%d services", services),
	})
	lb.SortRemnants(left)
	return left, nil
}

// Teardown implements lb.Driver.
func (d *Driver) Teardown(context.Context) error {
	if err := d.open(); err != nil {
		return err
	}
	d.entries, d.classes = map[lb.Key]*entry{}, map[class]int{}
	return errors.Join(d.conn.DropTable(d.layout.table), d.base.Teardown())
}
