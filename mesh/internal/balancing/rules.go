package balancing

import (
	"fmt"
	"log/slog"

	"meshd/lb"
	"meshd/lb/rulewatch"
)

// watchRules opens a watcher of the nftables ruleset of a network namespace, or
// of the host's for "".
func watchRules(netns string, log *slog.Logger) *rulewatch.Watcher {
	return rulewatch.New(func(own func(port uint32) bool) (rulewatch.Kernel, error) { return rulewatch.Open(netns, own) },
		log)
}

// hear makes a balancer hear what others write to the ruleset, instead of asking.
func hear(cfg *lb.Config, rules *rulewatch.Watcher) {
	cfg.RulesChanged, cfg.PollRules = rules.Subscribe(), func() bool { return rules.Err() != nil }
}

// newBudget returns a budget for what others do to rules.
func newBudget() *lb.Budget { return &lb.Budget{Processor: threadTime} }

// Unheard says where others' changes of the rules are noticed late.
func (h *Host) Unheard() (warnings []string) {
	add := func(where string, b *lb.Balancer, rules *rulewatch.Watcher) {
		if err := rules.Err(); err != nil && b.Counters().Driver != "" {
			warnings = append(warnings, fmt.Sprintf(
				"what others do to the nftables rules%s is not heard but asked for each second, so that VIPs and names that "+
					"they break are back later: %v", where, err))
		}
	}
	more := 0
	for _, name := range h.balancers.names() {
		b, ok := h.balancers.watched(name)
		switch {
		case !ok: // detached since
		case name == "":
			add("", b.Balancer, b.Rules)
		case len(warnings) > maxNamed:
			more++
		default:
			add(" of sandbox "+name, b.Balancer, b.Rules)
		}
	}
	if more > 0 {
		warnings = append(warnings, fmt.Sprintf("the nftables rules of %d more sandboxes may not be heard either", more))
	}
	return warnings
}
