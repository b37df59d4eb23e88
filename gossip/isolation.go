package gossip

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// dialPatience is how long a dial may be under way until its address counts as one
// that does not answer.
const dialPatience = 3 * time.Second

// answerMemory is how long a node that answered the core is company, although the
// membership does not list it.
const answerMemory = 10 * time.Second

// Isolation says why this node is in a mesh of its own although there are others to
// join, or "": it has met somebody, knows of nobody, or has only just begun to
// dial. Safe for concurrent use.
func (h *Host) Isolation() string { return h.joiner.isolation(time.Now()) }

// SetJoin replaces the addresses to join: those that are new are dialled at once,
// those that are gone no more, and who is a member stays one. Safe for concurrent
// use.
func (h *Host) SetJoin(addrs []string) {
	h.joiner.mu.Lock()
	h.cfg.Join = slices.Clone(addrs)
	h.joiner.mu.Unlock()
	h.joiner.wakeUp()
}

func (j *joiner) isolation(now time.Time) string {
	if !j.alone.Load() {
		return ""
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if now.Sub(j.lastAnswer) < answerMemory {
		return ""
	}
	own := map[string]bool{j.h.Addr().String(): true}
	all := j.missingAddrs(own, now)
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

// helpfulness ranks errors by how much they help: a key that differs is what only a
// person can mend, and silence says least.
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
