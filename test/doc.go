// Package test holds the tests that look at the repository itself: which
// package may import which, that packages and files keep to the house rules,
// and that the README says what the Makefile does. It exports nothing.
package test
