package gossip

import "fmt"

// The table by which a member's phase changes. This file holds no state and
// touches none: transition is a function, and its test writes the table out.

// phase is what this node makes of a member: the word of the membership, checked.
type phase uint8

const (
	phaseAlive   phase = iota
	phaseVerify        // reported dead or unknown to the membership: being checked
	phaseRelayed       // only others reach it: served after the others (a link of two nodes is cut)
	phaseDead          // hidden
	phaseKept          // vanished with too many others: served last (S12)
	phaseLeft          // left in order
	phaseAbsent        // listed, but never showed that it exists: treated as dead
	numPhases
)

// String names the phase, for tests and logs.
func (p phase) String() string {
	names := [numPhases]string{"alive", "verify", "relayed", "dead", "kept", "left", "absent"}
	if p < numPhases {
		return names[p]
	}
	return fmt.Sprintf("phase %d", uint8(p))
}

// sign is something that happened to a member.
type sign uint8

const (
	signListed           sign = iota // the membership lists it
	signUnlisted                     // the membership takes it for dead
	signGoodbyeHeard                 // a peer says that it said goodbye
	signGoodbyeConfirmed             // it confirmed its goodbye, or did not deny it
	signNamed                        // a stream of it came while it was unknown or had left
	signHeard                        // a packet of it came
	signReached                      // it answered this node
	signRelayed                      // it answered others that this node asked to ping it
	signUnanswered                   // it does not answer this node, or is silent and not listed
	signSilent                       // the check ended without an answer
	signCutOff                       // it vanished with so many others that it is rather this node that is cut off
	signExpired                      // kept for too long
	signUnproven                     // as signSilent, of a member that never showed that it exists
	signPushed                       // a change came that it made a moment ago
	numSigns
)

// String names the sign, for tests and logs.
func (s sign) String() string {
	names := [numSigns]string{
		"listed", "unlisted", "goodbye", "left", "named", "heard", "reached", "relayed", "unanswered", "silent", "cutoff",
		"expired", "unproven", "pushed",
	}
	if s < numSigns {
		return names[s]
	}
	return fmt.Sprintf("sign %d", uint8(s))
}

// act is what a transition does besides the change of phase.
type act uint8

const (
	actNone        act = iota
	actMarkAlive       // it is taken for alive: its check ends, and the membership is asked to list it
	actCheck           // it is pinged from here and through others
	actStopPinging     // its pings end
	actPing            // it is pinged, and hidden until it answers
	actAskGoodbye      // it is asked whether it leaves
)

// transition is all of the decision about a member: the phase and the act that
// follow from a sign, given its phase and whether the membership lists it.
//
// A packet brings every member back to life, with one exception: a member that
// the membership lists and that only others reach. That this node hears it does
// not show that this node can reach it. Only silence hides a member, and only one
// that the membership does not list, or that the list is all there is of; the
// list does not bring that last one back either. A change that a member made is
// handed on by others, so it shows that the member lives and not that this node
// reaches it: that is enough against a report that it is dead.
func transition(p phase, listed bool, s sign) (phase, act) {
	switch s {
	case signListed:
		if p == phaseAbsent {
			return p, actPing
		}
		return phaseAlive, actMarkAlive
	case signGoodbyeHeard:
		if p != phaseLeft {
			return p, actAskGoodbye
		}
	case signGoodbyeConfirmed:
		return phaseLeft, actNone
	case signHeard:
		if p != phaseAlive && (p != phaseRelayed || !listed) {
			return phaseAlive, actMarkAlive
		}
	case signReached:
		switch p {
		case phaseRelayed, phaseAbsent:
			return phaseAlive, actMarkAlive
		case phaseAlive:
			return p, actStopPinging
		}
	case signUnlisted:
		if p == phaseAlive {
			return phaseVerify, actCheck
		}
	case signNamed:
		if p == phaseDead || p == phaseLeft {
			return phaseVerify, actCheck
		}
	case signUnanswered:
		if p == phaseAlive || p == phaseRelayed && !listed {
			return phaseVerify, actCheck
		}
	case signRelayed:
		if p == phaseVerify || p == phaseDead || p == phaseAbsent {
			return phaseRelayed, actNone
		}
	case signSilent:
		switch {
		case p == phaseVerify && listed: // the membership still lists it, so others reach it
			return phaseRelayed, actNone
		case p == phaseVerify:
			return phaseDead, actNone
		}
	case signUnproven:
		switch {
		case p == phaseVerify && listed:
			return phaseAbsent, actNone
		case p == phaseVerify:
			return phaseDead, actNone
		}
	case signCutOff:
		if p == phaseDead || p == phaseVerify && !listed {
			return phaseKept, actNone
		}
	case signPushed:
		if (p == phaseVerify || p == phaseDead || p == phaseKept) && !listed {
			return phaseAlive, actMarkAlive
		}
	case signExpired:
		if p == phaseKept {
			return phaseDead, actNone
		}
	}
	return p, actNone
}
