package ipvs_test

import (
	"context"
	"fmt"
	"log/slog"

	"meshd/lb"
	"meshd/lb/ipvs"
)

// A balancer keeps the kernel equal to the views by a driver. Whether this kernel has
// what the driver needs, the driver says itself.
func Example() {
	driver, err := ipvs.New(ipvs.Config{Log: slog.Default()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer driver.Close()
	if err := driver.Probe(context.Background()); err != nil {
		fmt.Println("not here:", err) // what is missing, and how to get it
		return
	}
	var _ lb.Driver = driver // goes into lb.Config.Drivers
}
