package hostmend_test

import (
	"context"
	"fmt"

	"meshd/lb/hostcheck"
	"meshd/lb/hostmend"
)

// The rules that a check returns are added chain by chain. Adding them again changes
// nothing.
func ExampleAccept() {
	var facts hostcheck.Facts // as of lb/hostread
	_, rules := hostcheck.Check(&facts, &hostcheck.Needs{Driver: "nft"})
	for _, chain := range hostmend.ByChain(rules) {
		added, err := hostmend.Accept(context.Background(), chain)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(chain[0].ChainID(), "has new rules:", added)
	}
}
