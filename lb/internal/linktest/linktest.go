// Package linktest makes a node and a peer, two network namespaces with one link between
// them, for tests of what is programmed in the node's.
package linktest
