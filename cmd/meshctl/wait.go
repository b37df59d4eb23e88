package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"meshd/mesh/control"
)

// defaultWait is how long --wait without a duration waits.
const defaultWait = 30 * time.Second

// waitPause is how long a command with --wait pauses before it asks again.
const waitPause = 50 * time.Millisecond

// inEffect is what --wait waits for, as its help says, in a command that makes a
// change.
const inEffect = "every live node has the change"

// patience is the flag --wait[=DURATION] of a command. The value may also be the
// next word. The time runs from the start of the command.
type patience struct {
	limit time.Duration // 0: the flag is not there
}

// waiting binds --wait; until says, for people, what is waited for.
func (f *flags) waiting(until string) *patience {
	p := &patience{}
	f.set.Var(&waitValue{p, f}, "wait", fmt.Sprintf("wait until %s, for at most `DURATION` (default %s)", until,
		defaultWait))
	return p
}

// waitValue makes patience a flag.Value that may be left out.
type waitValue struct {
	p *patience
	f *flags
}

func (*waitValue) String() string   { return "" }
func (*waitValue) IsBoolFlag() bool { return true }

func (v *waitValue) Set(text string) error {
	if text == "true" { // the flag alone
		v.p.limit = defaultWait
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		v.f.bad = &usageError{fmt.Sprintf("--wait: %q is not a duration", text), "write for example 500ms, 10s or 2m"}
		return v.f.bad
	}
	v.p.limit = d
	return nil
}

// joinWait joins "--wait" and the duration that follows it into one word. A word
// that is no duration belongs to --wait only if the command takes no arguments.
func joinWait(args []string, noArguments bool) []string {
	for i, a := range args {
		if a == "--" {
			break
		}
		if a != "--wait" && a != "-wait" || i+1 == len(args) {
			continue
		}
		if next := args[i+1]; strings.HasPrefix(next, "-") && (len(next) == 1 || next[1] < '0' || next[1] > '9') {
			continue // a flag, and no duration below zero
		}
		if _, err := time.ParseDuration(args[i+1]); err != nil && !noArguments {
			continue
		}
		joined := append([]string{}, args[:i]...)
		return append(append(joined, "--wait="+args[i+1]), args[i+2:]...)
	}
	return args
}

// start begins the time limit. The context that it returns is for waiting alone:
// the change that is waited for goes on when the limit is over.
func (p *patience) start(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, p.limit)
}

// again pauses before another attempt. It reports false if there is none: without
// --wait, or when the time is over.
func (p *patience) again(wait context.Context) bool {
	if p.limit == 0 {
		return false
	}
	select {
	case <-wait.Done():
		return false
	case <-time.After(waitPause):
		return true
	}
}

// reach calls f and, with --wait, repeats it while meshd is not up yet. No meshd
// has seen the request then, so that repeating it is safe.
func (p *patience) reach(wait context.Context, f func() error) error {
	for {
		err := f()
		if !starting(err) || !p.again(wait) {
			return err
		}
	}
}

// starting reports whether the daemon may be about to start. If so, no daemon has
// seen the request.
func starting(err error) bool {
	return errors.Is(err, control.ErrUnreachable) && (errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, syscall.ECONNREFUSED))
}

// spread waits until the changes of this node in the networks are in effect on all
// live nodes; without --wait it does nothing. A node that has reported done once
// counts as done, because every question is asked after the change.
func (s *session) spread(ctx, wait context.Context, p *patience, networks ...string) error {
	if p.limit == 0 {
		return nil
	}
	for _, network := range networks {
		done := map[string]bool{}
		for {
			r, err := s.client.Spread(ctx, control.SpreadRequest{Network: network})
			if err != nil {
				return err
			}
			left := notDone(r, done)
			if len(left) == 0 {
				break
			}
			if !p.again(wait) {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return control.Refuse(control.CodeTimeout,
					"it is done on this node, and goes on by itself: meshctl node ls shows who is alive, meshctl diff what differs",
					"not in effect on every node after %s: %s", p.limit, strings.Join(left, "; "))
			}
		}
	}
	return nil
}

// notDone adds the nodes that are done to done, and says what the others lack.
func notDone(r control.Spread, done map[string]bool) (left []string) {
	for _, n := range r.Results {
		if n.Error == "" {
			done[n.Node] = true
		} else if !done[n.Node] {
			left = append(left, n.Node+" "+n.Error)
		}
	}
	return left
}
