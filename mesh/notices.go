package mesh

import (
	"maps"
	"slices"
	"sync"
)

// notices are the standing conditions that Status shows.
type notices struct {
	mu   sync.Mutex // guards what follows
	text map[string]string
}

// set replaces a condition, "" ends it, and reports whether that is news.
func (s *notices) set(key, text string) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text == nil {
		s.text = map[string]string{}
	}
	old := s.text[key]
	if text == "" {
		delete(s.text, key)
	} else {
		s.text[key] = text
	}
	return old != text
}

func (s *notices) get(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text[key]
}

func (s *notices) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(s.text)) {
		out = append(out, s.text[k])
	}
	return out
}
