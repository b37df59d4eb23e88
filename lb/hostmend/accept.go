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

// commandLimit is how long a program may take, and maxOutput how many bytes of its
// output are kept.
const (
	commandLimit = 5 * time.Second
	maxOutput    = 1 << 20
)

// ByChain groups rules by their chains, as Accept and Revoke need them.
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

// Accept adds those rules to a chain of others that it does not have yet. All must be
// for the same chain and program. It reports whether it added any; the error is that
// of the program.
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

// hasRule reports whether iptables has a rule of ours.
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

// acceptNft makes our rules in a chain of nft equal to these. nft cannot be asked for
// one rule, so if one is missing or wrong, all are made anew.
func acceptNft(ctx context.Context, lets []hostcheck.AcceptRule) (bool, error) {
	have, err := listRules(ctx, lets[0])
	if err != nil || sameRules(have, lets) {
		return false, err
	}
	return true, replaceRules(ctx, lets[0], lets, have)
}

// replaceRules adds rules to a chain of nft and removes those that were there, in one
// transaction: an attempt that fails leaves nothing behind, so rules do not pile up
// with each attempt.
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

// RevokeSome removes rules of ours from a chain of others, and leaves rest, the other
// rules of ours in it. It needs both, since rules of nft can be told apart neither by
// name nor by text. A chain that does not exist is no error.
func RevokeSome(ctx context.Context, gone, rest []hostcheck.AcceptRule) error {
	if len(gone) == 0 {
		return nil
	}
	if gone[0].Program != "nft" {
		return Revoke(ctx, gone)
	}
	have, err := listRules(ctx, gone[0])
	if err != nil || len(have) == 0 {
		return nil // the chain is gone, or has no rule of ours
	}
	return replaceRules(ctx, gone[0], rest, have)
}

// Revoke removes our rules from the chain that these rules are for. A chain that does
// not exist is no error.
func Revoke(ctx context.Context, lets []hostcheck.AcceptRule) error {
	if len(lets) == 0 {
		return nil
	}
	if lets[0].Program == "nft" {
		have, err := listRules(ctx, lets[0])
		if err != nil {
			return nil // the chain is gone
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

// Accepted reports whether the chain has any of the rules.
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

// listRules returns our rules in a chain of nft. A rule with our comment that does not
// accept is not ours.
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

// runProgram runs a program and returns its output. The error has its messages.
func runProgram(ctx context.Context, words []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	var out, messages limited
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &messages, time.Second
	if err := cmd.Run(); err != nil {
		text := strings.Join(strings.Fields(messages.String()), " ")
		return "", fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, text)
	}
	return out.String(), nil
}

// limited keeps the first maxOutput bytes that are written to it.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if room := maxOutput - l.Len(); room > 0 {
		l.Buffer.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}
