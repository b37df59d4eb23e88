// Package nftconn is a connection to nf_tables, conntrack and the routes of one
// network namespace, and what is said over it: expressions of rules, keys of
// elements, transactions. Both drivers, and what they stand on (lb/pool), use it.
//
// A Conn knows the number of the ruleset that it wrote or read last, so that it can
// tell whether anybody else has written since. It is used by one goroutine at a time.
package nftconn

// Config says what to connect to.
type Config struct {
	// NetNS is the path of the network namespace; empty is the caller's own.
	NetNS string
	// Listener hears of changes of the ruleset. May be nil.
	Listener Listener
}

// Listener hears of changes of the namespace's ruleset (lb/rulewatch), and has to
// tell ours from others'.
type Listener interface {
	// SetOwnPort is told of the netlink port from which the ruleset is written, before the
	// first write and after the last.
	SetOwnPort(port uint32, open bool)
	// RunUnsubscribed calls write, which commits one transaction at most, while nobody
	// listens: for those who do, the kernel makes a message of every element. From
	// number, which returns that of the ruleset, it knows whether others wrote
	// meanwhile. The error is that of write.
	RunUnsubscribed(number func() (uint32, error), write func() error) error
}

// noListener hears nothing.
type noListener struct{}

func (noListener) SetOwnPort(uint32, bool)                                            {}
func (noListener) RunUnsubscribed(_ func() (uint32, error), write func() error) error { return write() }
