package sysctl_test

import (
	"fmt"

	"meshd/lb/sysctl"
)

// What is changed of a host is noted as it was found, and put back later.
func Example() {
	var noted []sysctl.Change
	settings := []sysctl.Setting{{Key: sysctl.ForwardIPv4, Value: "1"}}
	_, err := sysctl.Set("", settings, func(c sysctl.Change) { noted = append(noted, c) })
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := sysctl.PutBack(noted); err != nil {
		fmt.Println(err)
	}
}
