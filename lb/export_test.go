package lb

import "meshd/state"

// What the tests of package lb_test see of the planner.
type Planner = planner

// NewPlanner returns a planner without networks.
var NewPlanner = newPlanner

// Plan returns the table that this node's kernel should hold for some views, by a
// planner that has followed no changes.
func Plan(node Node, views []state.View) *Table {
	p := newPlanner(node)
	for _, v := range views {
		p.SetNetwork(v.Def())
		for _, s := range v.Services() {
			p.Set(v.Def().Name, s.Name, s)
		}
	}
	return p.Desired()
}
