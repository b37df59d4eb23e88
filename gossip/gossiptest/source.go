package gossiptest

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

// Source makes the choices of the grammar: from bytes while there are any, as
// a fuzzer mutates them, then from a generator. Equal sources choose alike.
type Source struct {
	bytes []byte
	rng   *rand.Rand
	fuse  int // how many numbers are still honest; below zero: all
}

// Seeded returns a source that chooses by a seed.
func Seeded(seed uint64) *Source { return &Source{rng: rand.New(rand.NewPCG(seed, 0x7a77))} }

// FromBytes returns a source whose first choices are b.
func FromBytes(b []byte) *Source {
	var sum uint64
	for _, c := range b {
		sum = sum*1099511628211 + uint64(c)
	}
	s := Seeded(sum)
	s.bytes = b
	return s
}

// N chooses a number below n.
func (s *Source) N(n int) int {
	if n <= 1 {
		return 0
	}
	if len(s.bytes) == 0 || n > 256 {
		return s.rng.IntN(n)
	}
	v := s.bytes[0]
	s.bytes = s.bytes[1:]
	return int(v) % n
}

// One chooses one time in n.
func (s *Source) One(n int) bool { return s.N(n) == 0 }

// Of chooses one of some values.
func Of[T any](s *Source, vs ...T) T { return vs[s.N(len(vs))] }

// light starts a frame: it decides which of its numbers is hostile, if any. A
// frame with several does not get past the first.
func (s *Source) light() {
	s.fuse = s.N(16)
	if s.One(3) {
		s.fuse = -1
	}
}

// Number chooses a number for a field of which an honest node says honest.
func (s *Source) Number(honest uint64) uint64 {
	if s.fuse--; s.fuse != -1 {
		s.fuse = max(s.fuse, -2)
		return honest
	}
	if s.One(3) {
		return honest + uint64(s.N(5)) - 2
	}
	return s.hostile()
}

// hostile chooses a number that is at some edge.
func (s *Source) hostile() uint64 {
	switch s.N(6) {
	case 0:
		return Of[uint64](s, 0, 1, 2, math.MaxUint64, math.MaxUint64-1, math.MaxInt64, math.MaxInt64+1, math.MaxUint32,
			math.MaxInt32)
	case 1, 2: // k times it is 2^64 and a little: products wrap around
		k := Of[uint64](s, 2, 3, 4, 5, 8, 12, 13, 16, 24, 40, 56, 80) // sizes of items, on the wire and in memory
		if s.One(4) {
			k = uint64(2 + s.N(254))
		}
		return WrapsBy(k, uint64(1+s.N(12))) + Of[uint64](s, 0, 0, 1, math.MaxUint64)
	case 3: // what a stream may say at most, and around it
		return 1<<62 + uint64(s.N(5)) - 2
	}
	return 1<<s.N(64) + uint64(s.N(3)) - 1
}

// WrapsBy returns ceil(turns·2^64/k), the least number whose product with k
// wraps around turns times.
func WrapsBy(k, turns uint64) uint64 {
	turns %= k // the quotient must fit
	if turns == 0 {
		turns = 1
	}
	if k <= turns {
		return math.MaxUint64
	}
	q, r := bits.Div64(turns, 0, k)
	if r > 0 {
		q++
	}
	return q
}
