package state

// Verify compares every stream's content with the checksum of its head, and
// the table's hash with its streams. A stream that differs asks for its owner's
// next snapshot; it returns how many do. It is for a table whose writer was
// interrupted: in all other cases there is nothing to find.
func (t *Table) Verify() (differ int) {
	t.fine = [fineBuckets]uint64{}
	for o, s := range t.streams {
		var sum uint64
		for _, sl := range s.live {
			sum += sl.current.sum()
		}
		if sum != s.head.Sum && o != t.self {
			s.resync, s.stage = true, nil
			differ++
		}
		s.head.Sum = sum
		if s.offered && s.head.Inc > 0 {
			t.fine[s.hash&(fineBuckets-1)] += s.head.hash(s.hash)
		}
	}
	return differ
}
