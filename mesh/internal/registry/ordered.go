package registry

import (
	"iter"
	"strings"

	"github.com/tidwall/btree"
)

// ordered is a map by name, in order, of which a copy costs nothing: copies share what
// they have in common. The zero value is empty. An original is not written to any more
// once it was copied, so it may be read while a copy is changed.
type ordered[V any] struct{ m *btree.Map[string, V] }

// copied returns a copy that may be changed. It belongs to the writer: the copies of one
// original are made one after the other.
func (o ordered[V]) copied() ordered[V] {
	if o.m == nil {
		return ordered[V]{btree.NewMap[string, V](0)}
	}
	return ordered[V]{o.m.Copy()}
}

func (o ordered[V]) get(key string) (v V, ok bool) {
	if o.m == nil {
		return v, false
	}
	return o.m.Get(key)
}

// at returns the value of a key, or the zero value.
func (o ordered[V]) at(key string) V {
	v, _ := o.get(key)
	return v
}

func (o ordered[V]) has(key string) bool {
	_, ok := o.get(key)
	return ok
}

func (o ordered[V]) len() int {
	if o.m == nil {
		return 0
	}
	return o.m.Len()
}

// all are the keys and values in order.
func (o ordered[V]) all() iter.Seq2[string, V] { return o.beginning("") }

// beginning are the keys that begin with a prefix, and their values, in order.
func (o ordered[V]) beginning(prefix string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if o.m == nil {
			return
		}
		o.m.Ascend(prefix, func(k string, v V) bool { return strings.HasPrefix(k, prefix) && yield(k, v) })
	}
}

// set and remove change a copy that is not shared yet.
func (o ordered[V]) set(key string, v V)    { o.m.Set(key, v) }
func (o ordered[V]) remove(key string) bool { _, ok := o.m.Delete(key); return ok }
