package hostmend

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"meshd/lb/hostcheck"
)

// commandLimit is how long a program may take, and maxOutput what is kept of
// what it says.
const (
	commandLimit = 5 * time.Second
	maxOutput    = 1 << 20
)

// ByChain groups rules by the chains that they are for, as Accept and Revoke want
// them.
func ByChain(lets []hostcheck.AcceptRule) (groups [][]hostcheck.AcceptRule) {
	at := map[string]int{}
	for _, l := range lets {
		i, ok := at[l.ChainID()]
		if !ok {
			i = len(groups)
			at[l.ChainID()], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], l)
	}
	return groups
}

// Accept adds rules to one chain of others, all of which are for the same chain
// and program, where they are not there. It reports whether it added any.
func Accept(ctx context.Context, lets []hostcheck.AcceptRule) (added bool, err error) {
	if len(lets) == 0 {
		return false, nil
	}
	if lets[0].Program == "nft" {
		return acceptNft(ctx, lets)
	}
	for _, l := range lets {
		if hasRule(ctx, l) {
			continue
		}
		if _, err := runProgram(ctx, l.Command(hostcheck.RuleComment, false)); err != nil {
			return added, err
		}
		added = true
	}
	return added, nil
}

// there reports whether iptables has a rule of ours.
func hasRule(ctx context.Context, l hostcheck.AcceptRule) bool {
	words := l.Command(hostcheck.RuleComment, true)
	for i, w := range words {
		if w == "-D" {
			words[i] = "-C"
		}
	}
	_, err := runProgram(ctx, words)
	return err == nil
}

// acceptNft adds what is missing of our rules. nft cannot be asked for one rule: if
// those of ours are not what they should be, all are made anew.
func acceptNft(ctx context.Context, lets []hostcheck.AcceptRule) (bool, error) {
	have, err := listRules(ctx, lets[0])
	if err != nil || sameRules(have, lets) {
		return false, err
	}
	return true, replaceRules(ctx, lets[0], lets, have)
}

// remake adds rules to a chain of nft and removes those that were there, in one
// transaction: of what cannot be added as a whole nothing is left behind, and so it
// does not become more with each attempt.
func replaceRules(ctx context.Context, chain hostcheck.AcceptRule, lets []hostcheck.AcceptRule, have []listed) error {
	words := []string{"nft"}
	statement := func(all ...string) {
		if len(words) > 1 {
			words = append(words, ";")
		}
		words = append(words, all...)
	}
	for _, l := range lets {
		statement(l.Command(hostcheck.RuleComment, false)[1:]...)
	}
	for _, one := range have {
		statement("delete", "rule", chain.Family, chain.Table, chain.Chain, "handle", one.handle)
	}
	if len(words) == 1 {
		return nil
	}
	_, err := runProgram(ctx, words)
	return err
}

// Reduce removes rules of ours from one chain of others, and leaves the rest of
// ours there, which it is told as well: rules of nft are told apart by neither
// name nor text. A chain that is gone is no error.
func RevokeSome(ctx context.Context, gone, rest []hostcheck.AcceptRule) error {
	if len(gone) == 0 {
		return nil
	}
	if gone[0].Program != "nft" {
		return Revoke(ctx, gone)
	}
	have, err := listRules(ctx, gone[0])
	if err != nil || len(have) == 0 {
		return nil // there is no such chain any more, or nothing of ours in it
	}
	return replaceRules(ctx, gone[0], rest, have)
}

// Revoke removes our rules from the chain that rules are for. A chain that is gone
// is no error.
func Revoke(ctx context.Context, lets []hostcheck.AcceptRule) error {
	if len(lets) == 0 {
		return nil
	}
	if lets[0].Program == "nft" {
		have, err := listRules(ctx, lets[0])
		if err != nil {
			return nil // there is no such chain any more
		}
		return replaceRules(ctx, lets[0], nil, have)
	}
	for _, l := range lets {
		if !hasRule(ctx, l) {
			continue
		}
		if _, err := runProgram(ctx, l.Command(hostcheck.RuleComment, true)); err != nil {
			return err
		}
	}
	return nil
}

// Accepted reports whether any of the rules is there.
func Accepted(ctx context.Context, lets []hostcheck.AcceptRule) bool {
	if len(lets) > 0 && lets[0].Program == "nft" {
		have, err := listRules(ctx, lets[0])
		return err == nil && len(have) > 0
	}
	for _, l := range lets {
		if hasRule(ctx, l) {
			return true
		}
	}
	return false
}

// listed is a rule of ours in a chain of nft.
type listed struct {
	match  string // as nft writes it
	handle string
}

// list returns our rules in a chain of nft: what somebody made drop is not ours.
func listRules(ctx context.Context, l hostcheck.AcceptRule) (all []listed, err error) {
	out, err := runProgram(ctx, []string{"nft", "-a", "list", "chain", l.Family, l.Table, l.Chain})
	if err != nil {
		return nil, err
	}
	for text := range strings.Lines(out) {
		rule, handle, ok := strings.Cut(strings.TrimSpace(text), " # handle ")
		match, ours := strings.CutSuffix(rule, ` accept comment "`+hostcheck.RuleComment+`"`)
		if ok && ours {
			all = append(all, listed{match, handle})
		}
	}
	return all, nil
}

// run runs a program and returns what it wrote.
func runProgram(ctx context.Context, words []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	var out, said limited
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &said, time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, strings.Join(strings.Fields(said.String()), " "))
	}
	return out.String(), nil
}

// limited keeps the beginning of what is written to it.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if room := maxOutput - l.Len(); room > 0 {
		l.Buffer.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}
