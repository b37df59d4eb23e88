// Package sim steps many protocol cores in one goroutine under a virtual
// clock, with faults on every link and node (G10). Nothing in it depends on
// anything but the seed: the same seed gives the same run, event for event,
// which World.Trace proves.
//
// What is modelled: latency, jitter, loss, duplication, reordering and
// bandwidth per link, datagrams and streams (connection set-up, slow start,
// retransmission), cuts in one or both directions for datagrams, streams or
// both, pauses, crashes with and without disk, clocks that jump, and a
// membership that behaves like memberlist as measured: late, sometimes wrong,
// silent about fast restarts, with holes after joins. What is not: CPU time.
package sim
