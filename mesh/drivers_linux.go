package mesh

import (
	"log/slog"

	"meshd/lb"
	"meshd/lb/ipvs"
	"meshd/lb/nft"
)

// drivers returns the load balancer's drivers in order of preference (L7).
func drivers(choice string, log *slog.Logger) ([]lb.Driver, error) {
	var ds []lb.Driver
	if choice == "auto" || choice == "ipvs" {
		d, err := ipvs.New(ipvs.Config{Log: log})
		if err != nil {
			return nil, err
		}
		ds = append(ds, d)
	}
	if choice == "auto" || choice == "nft" {
		d, err := nft.New(nft.Config{Log: log})
		if err != nil {
			return nil, err
		}
		ds = append(ds, d)
	}
	return ds, nil
}
