package gossip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// This file is what others ask of a host's joiner: to join addresses, whom it remembers,
// and why it has joined no other node.

// JoinResult is the result of one address.
type JoinResult struct {
	Addr string
	Err  error // nil: a node answered there
}

// Join dials addresses at once and returns a result for each, in their order. Addresses
// that failed are not tried again; SetJoin's are. If ctx ends first, every result is its
// error.
func (h *Host) Join(ctx context.Context, addrs []string) []JoinResult {
	out := make([]JoinResult, len(addrs))
	var wg sync.WaitGroup
	for i, a := range addrs {
		wg.Go(func() {
			_, err := h.ml.Join([]string{a})
			out[i] = JoinResult{Addr: a, Err: joinError(err)}
		})
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	select {
	case <-finished:
		return out
	case <-ctx.Done():
		res := make([]JoinResult, len(addrs))
		for i, a := range addrs {
			res[i] = JoinResult{Addr: a, Err: ctx.Err()}
		}
		return res
	}
}

// SetJoin replaces the addresses to join. New ones are dialled at once, those that are
// gone are not dialled any more; members stay members.
func (h *Host) SetJoin(addrs []string) {
	h.joiner.mu.Lock()
	h.joiner.seeds = slices.Clone(addrs)
	h.joiner.mu.Unlock()
	h.joiner.wakeUp()
}

// Isolation says why this node is in a mesh of its own although there are others to
// join. It is "" if the node has joined one, knows of none, or has only just begun to
// dial.
func (h *Host) Isolation() string { return h.joiner.isolation(time.Now()) }

const (
	dialPatience = 3 * time.Second  // a dial under way for longer counts as one without a reply
	answerMemory = 10 * time.Second // a node that answered the core within it is company enough
)

func (j *joiner) isolation(now time.Time) string {
	if !j.alone.Load() {
		return ""
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if now.Sub(j.lastAnswer) < answerMemory {
		return ""
	}
	all := j.missingAddrs(now)
	slices.Sort(all)
	failing, worst, why := 0, "", error(nil)
	for _, a := range all {
		t := j.attempts[a]
		if t == nil || t.err == nil && (!t.running || now.Sub(t.last) < dialPatience) {
			continue
		}
		failing++
		err := t.err
		if err == nil {
			err = errNoReply
		}
		if why == nil || helpfulness(err) > helpfulness(why) {
			worst, why = a, err
		}
	}
	if failing == 0 {
		return ""
	}
	return fmt.Sprintf("this node has joined nobody, and serves what it has itself: of %d addresses to join %d do not "+
		"let it in; %s: %v", len(all), failing, worst, why)
}

const noReplyHint = " (is it the right address, and does no firewall drop TCP and UDP to its port?)"

var errNoReply = errors.New("no reply" + noReplyHint)

// helpfulness ranks errors by how much they help a person: only a person can mend a key
// that differs, and silence says least.
func helpfulness(err error) int {
	switch {
	case strings.Contains(err.Error(), "--key-file"):
		return 3
	case strings.Contains(err.Error(), "is meshd running"):
		return 2
	case !errors.Is(err, errNoReply):
		return 1
	}
	return 0
}
