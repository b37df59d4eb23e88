package pool

import (
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"meshd/lb/nftconn"
)

// A packet that has a mark of others when ours is due gets it back behind IPVS.
// Between the two nothing but its priority travels with it, which IPVS does not
// look at and which is others' as well. So the priority becomes a number that
// stands for the pair of mark and priority, a hash of both, and two maps that
// the kernel fills say what a number stands for:
//
//	keep_mark     ip daddr . meta l4proto != @served_all return
//	              update @kept_marks { jhash meta mark . meta priority : meta mark }
//	                update @kept_priorities { jhash meta mark . meta priority : meta priority }
//	                meta priority set jhash meta mark . meta priority
//	                meta mark set ip daddr . meta l4proto map @marks return
//	              counter meta mark set ip daddr . meta l4proto map @marks
//	restore_sent  meta mark and 0xff000000 == 0x6d000000 meta priority != 0
//	                meta mark set meta priority map @kept_marks
//	                meta priority set meta priority map @kept_priorities
//
// The maps have an entry for each pair in use, not for each connection, and a
// packet gets back exactly what it had, also where marks change from one packet
// to the next. When there is no room for another pair, the mark is lost, and the
// counter of the last rule of keep_mark says so. Two pairs of maxKept have the same number,
// and a priority of others is a number in use, once in some thousands of millions.
//
// restore_sent is a chain of type route: what others route by mark goes where
// the mark that is back leads, as it does without IPVS. Packets that had no mark
// do not come that far, and cost nothing.
//
// What served_all does not have is on its way to a backend already, or is
// refused before IPVS: it needs no mark.

const (
	// maxKept bounds the pairs of mark and priority.
	maxKept = 1024
	// keptTimeout is how long a pair that no packet has is remembered. A packet
	// needs its pair for some microseconds.
	keptTimeout = time.Minute
	// keptSeed is that of the hash: "mesh".
	keptSeed = 0x6d657368
)

// newKeptMaps makes the two maps of a family.
func (m *marks) newKeptMaps(i int) [2]*nftables.Set {
	kept := func(id int, name string, data nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{
			Table: m.table[i], ID: uint32(id + i), Name: name, IsMap: true, KeyType: nftables.TypeClassID, DataType: data,
			Dynamic: true, HasTimeout: true, Timeout: keptTimeout, Size: maxKept,
		}
	}
	return [2]*nftables.Set{
		kept(11, "kept_marks", nftables.TypeMark),
		kept(13, "kept_priorities", nftables.TypeClassID),
	}
}

// addKeepRules adds the rules of the chain keep_mark.
func (m *marks) addKeepRules(i int, chain *nftables.Chain, add func(*nftables.Chain, ...[]expr.Any)) {
	const ( // registers
		mark = nftconn.FirstRegister + iota
		priority
		number
		service
	)
	keep := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: mark},
		&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: priority},
		&expr.Hash{ // of both, and never 0
			SourceRegister: mark, Length: 8, DestRegister: number,
			Modulus: ^uint32(0), Offset: 1, Seed: keptSeed, Type: expr.HashTypeJenkins,
		},
	}
	for n, data := range []uint32{mark, priority} {
		keep = append(keep, &expr.Dynset{
			SrcRegKey: number, SrcRegData: data, Operation: unix.NFT_DYNSET_OP_UPDATE,
			SetName: m.kept[i][n].Name, SetID: m.kept[i][n].ID,
		})
	}
	keep = append(keep, &expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: number})
	verdict := []expr.Any{nftconn.Return()}
	add(chain, nftconn.Families[i].LoadServiceAddress(), []expr.Any{nftconn.NotInSet(m.served.sets[i][1])}, verdict)
	add(chain, keep, m.setMark(i, service), verdict)
	add(chain, []expr.Any{&expr.Counter{}}, m.setMark(i, nftconn.FirstRegister))
}

// restoreMark gives a packet that has a mark of ours the mark and the priority
// of others that it had.
func (m *marks) restoreMark(i int) []expr.Any {
	load := nftconn.LoadMeta(expr.MetaKeyPRIORITY)
	found := func(n int) *expr.Lookup {
		return &expr.Lookup{
			SourceRegister: nftconn.FirstRegister, DestRegister: nftconn.FirstRegister, IsDestRegSet: true,
			SetName: m.kept[i][n].Name, SetID: m.kept[i][n].ID,
		}
	}
	return []expr.Any{
		load, nftconn.NotEqual(nftconn.Native32(0)),
		load, found(0), setMark(nftconn.FirstRegister),
		load, found(1), nftconn.SetMeta(expr.MetaKeyPRIORITY),
	}
}
