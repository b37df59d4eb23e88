// Package hostkind makes hosts as people have them: with the settings of a
// distribution, with the rules that Docker, ufw and firewalld write, with none of
// IPv6. Nothing of that is written by hand: the programs themselves run, in the
// network namespace of the host and in mounts of their own, and what they need to
// go on is there until the rig is closed.
//
// Where the programs cannot run, as in the machine of test/vm, what they wrote on
// another one is loaded: see [Save] and [SavedEnv].
package hostkind
