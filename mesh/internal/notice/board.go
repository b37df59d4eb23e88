// Package notice says what is the matter with a node, and no more often than people
// can read (N4): status shows the standing conditions of a Board, the log and events
// have a Condition when it changes, and what peers can cause at will passes a Limiter
// or a SubjectLimiter.
//
// It owns nothing but these counts and texts, has no clock of its own (callers pass
// the time) and imports nothing of ours.
package notice

import (
	"maps"
	"slices"
	"sync"
)

// Board holds the standing conditions that status shows, by key. The zero value is
// empty. It is safe for concurrent use.
type Board struct {
	mu   sync.Mutex // guards text
	text map[string]string
}

// Set replaces the text of a condition and reports whether it changed; "" ends the
// condition.
func (b *Board) Set(key, text string) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text == nil {
		b.text = map[string]string{}
	}
	old := b.text[key]
	if text == "" {
		delete(b.text, key)
	} else {
		b.text[key] = text
	}
	return old != text
}

// Get returns the text of a condition, "" if there is none.
func (b *Board) Get(key string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text[key]
}

// All returns the texts, sorted by key.
func (b *Board) All() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(b.text)) {
		out = append(out, b.text[k])
	}
	return out
}
