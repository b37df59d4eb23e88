package sandbox_test

import (
	"fmt"

	"meshd/mesh/sandbox"
)

// A container's network namespace is held by one of its processes, and its end is
// noticed.
func Example() {
	ns, err := sandbox.Open(sandbox.Target{PID: 4711})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ns.Close()
	addresses, err := ns.Addrs()
	fmt.Println(addresses, err)
	<-ns.Died()
}
