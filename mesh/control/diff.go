package control

import (
	"cmp"
	"fmt"
	"slices"
)

// Compare fills Equal and Differ of d and of its networks from their Nodes and
// from Silent. The checksum that most nodes have is taken for right; of two
// that as many have, the one of the first node in name order.
func (d *Diff) Compare() {
	d.Equal = len(d.Silent) == 0
	for i := range d.Networks {
		n := &d.Networks[i]
		n.compare()
		d.Equal = d.Equal && n.Equal
	}
}

func (n *NetworkDiff) compare() {
	slices.SortFunc(n.Nodes, func(a, b NodeChecksum) int { return cmp.Compare(a.Node, b.Node) })
	votes := map[string]int{}
	for _, c := range n.Nodes {
		votes[c.Checksum]++
	}
	right := ""
	for _, c := range n.Nodes {
		if right == "" || votes[c.Checksum] > votes[right] {
			right = c.Checksum
		}
	}
	n.Differ = nil
	for _, c := range n.Nodes {
		if c.Checksum != right {
			n.Differ = append(n.Differ, c.Node)
		}
	}
	n.Equal = len(n.Differ) == 0
}

// ChecksumText is the checksum of a table as the API writes it.
func ChecksumText(sum uint64) string { return fmt.Sprintf("%016x", sum) }
