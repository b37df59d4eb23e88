// Package guest is the first process in the machine of package vm: it makes a
// bare kernel a place where programs can run, runs those of its job, reports
// over a serial port, and powers off.
package guest
