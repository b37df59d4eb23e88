package state

import "slices"

// This file owns lists of values that have something in common, of which there may
// be very many (S20).

// longList is how far a list of endpoints that have something in common is
// searched: of a longer list, only a part is looked at. Twins that
// are added behind that are found by x.full as well.
const longList = 512

// bag is a list without order. A long one knows where each value is, so that
// to take one away costs the same however many there are.
type bag[T comparable] struct {
	list []T
	at   map[T]int // nil in a short one
}

// some returns the values, of a long list some.
func (c *bag[T]) some() []T {
	if c == nil {
		return nil
	}
	return c.list[:min(len(c.list), longList)]
}

func (c *bag[T]) len() int {
	if c == nil {
		return 0
	}
	return len(c.list)
}

func (c *bag[T]) add(v T) {
	if c.at != nil {
		c.at[v] = len(c.list)
	}
	if c.list = append(c.list, v); len(c.list) > longList && c.at == nil {
		c.at = make(map[T]int, len(c.list))
		for i, o := range c.list {
			c.at[o] = i
		}
	}
}

func (c *bag[T]) remove(v T) {
	i, ok := c.at[v]
	if c.at == nil {
		i = slices.Index(c.list, v)
		ok = i >= 0
	}
	if !ok {
		return
	}
	last := len(c.list) - 1
	c.list[i] = c.list[last]
	if c.at != nil {
		c.at[c.list[i]] = i
		delete(c.at, v)
	}
	c.list = c.list[:last]
}

// addTo adds a value to one of the lists and returns how many it has then.
func addTo[K, V comparable](lists map[K]*bag[V], k K, v V) int {
	c := lists[k]
	if c == nil {
		c = &bag[V]{}
		lists[k] = c
	}
	c.add(v)
	return len(c.list)
}

// dropFrom drops a value from one of the lists and returns what is left of it.
func dropFrom[K, V comparable](lists map[K]*bag[V], k K, v V) *bag[V] {
	c := lists[k]
	if c == nil {
		return nil
	}
	if c.remove(v); len(c.list) == 0 {
		delete(lists, k)
		return nil
	}
	return c
}
