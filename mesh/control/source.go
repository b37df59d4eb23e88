package control

import (
	"context"
	"net/http"
	"time"
)

// SourceBackend is the part of Backend about what finds tasks by itself (N10).
type SourceBackend interface {
	// Sources lists what the sources of this node look after, with what became of it,
	// sorted by origin and unit.
	Sources(ctx context.Context) ([]SourceUnit, error)
}

// The states of a SourceUnit.
const (
	UnitServed  = "served"  // its tasks are registered
	UnitWaiting = "waiting" // they are about to be, or cannot be at the moment: Problems say why
	UnitRefused = "refused" // what it asks for cannot be: Problems say why
	UnitIgnored = "ignored" // it is none of meshd's business: Problems say why
	UnitStopped = "stopped" // it does not run, or is paused
)

// SourceUnit is what a source states as a whole: a container, a file.
type SourceUnit struct {
	// Which unit it is.

	// Origin is the kind of the source: docker, file.
	Origin string `json:"origin"`
	// Unit is its name, for people: that of a container or a file.
	Unit string `json:"unit"`
	// ID tells it from others of that name: of a container, what its tasks have as their id.
	ID string `json:"id,omitempty"`

	// What became of it.

	// State is UnitServed, UnitWaiting, UnitRefused, UnitIgnored or UnitStopped.
	State string `json:"state"`
	// Tasks is how many it states.
	Tasks int `json:"tasks"`
	// Since is when State changed.
	Since time.Time `json:"since"`
	// Problems say what of it does not work, and what was passed over, for people.
	Problems []string `json:"problems"`
}

func (h *handler) sourceRoutes() {
	h.handle("GET /v1/sources", quickLimit, nil, func(r *http.Request) (any, error) {
		return h.backend.Sources(r.Context())
	})
}

// sourceCalls are the calls of a Client about sources.
type sourceCalls struct{ c *Client }

// Sources implements Backend.
func (s sourceCalls) Sources(ctx context.Context) ([]SourceUnit, error) {
	return call[[]SourceUnit](ctx, s.c, http.MethodGet, "/v1/sources", nil, nil)
}
