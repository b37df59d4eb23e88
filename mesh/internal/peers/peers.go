// Package peers asks other nodes, all at once, and gathers what they answer.
//
// It owns no state. Whoever has the mesh's key may be at the other end: what is
// answered passes the caller's parser, which must take it for written by a stranger,
// and a node of which nothing but a name is known is not asked (G17).
package peers

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"meshd/mesh/control"
	"meshd/state"
)

// Caller reaches other nodes. Its methods are safe for concurrent use.
type Caller interface {
	// Nodes lists all nodes, this one with Self set.
	Nodes(ctx context.Context) ([]control.Node, error)
	// Call sends a node a question and returns its answer, of any content.
	Call(ctx context.Context, to state.NodeID, op string, body []byte) ([]byte, error)
}

// callTimeout is how long CallAll waits for the answers.
const callTimeout = 2 * time.Second

// CallAll asks every live node but this one at once. It returns the answers by node,
// and, sorted, the nodes that did not answer within two seconds or not with what parse
// reads. The error is that of Caller.Nodes.
func CallAll[T any](ctx context.Context, c Caller, op string, body []byte, parse func([]byte) (T, error)) (map[string]T,
	[]control.SilentNode, error,
) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	nodes = slices.DeleteFunc(nodes, func(x control.Node) bool {
		return x.Self || x.State != control.NodeAlive && x.State != control.NodeSuspect || NameOnly(x)
	})
	answers, silent := Call(ctx, c, nodes, op, body, parse)
	return answers, silent, nil
}

// Call asks the given nodes at once, until ctx ends, and returns what CallAll does.
func Call[T any](ctx context.Context, c Caller, nodes []control.Node, op string, body []byte,
	parse func([]byte) (T, error),
) (map[string]T, []control.SilentNode) {
	var mu sync.Mutex // guards the two results
	answers, silent := map[string]T{}, []control.SilentNode{}
	var wg sync.WaitGroup
	for _, x := range nodes {
		wg.Go(func() {
			var v T
			b, err := c.Call(ctx, state.NodeID(x.Name), op, body)
			if err == nil {
				v, err = parse(b)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = append(silent, control.SilentNode{Node: x.Name, Error: explain(err)})
				return
			}
			answers[x.Name] = v
		})
	}
	wg.Wait()
	slices.SortFunc(silent, func(a, b control.SilentNode) int { return strings.Compare(a.Node, b.Node) })
	return answers, silent
}

// NameOnly reports whether the membership lists a node of which nothing else is known:
// whoever has the key can put thousands of names there, and none of them answers (G17).
func NameOnly(x control.Node) bool { return !x.Proven && x.Version == "" }

// explain is an error for people, as a predicate of the node.
func explain(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "does not answer"
	}
	return err.Error()
}
