// Package health says what a health check is, and what follows from its answers.
//
// A Definition is a check as a person writes it: in a file, in a request to the API, in
// a flag, in a label. Definition.Parse is the one constructor of a Check (S17, C1).
// A Tracker turns the answers of one check into a verdict (C2), as a pure function of
// them and of the times that it is given: no clock, no goroutine, no I/O. Who runs
// checks is mesh/internal/checker, and how they ask is mesh/internal/probe.
//
// The package imports nothing of ours, so that the types of the API can use it.
package health
