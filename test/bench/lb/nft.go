//go:build linux

package main

import (
	"context"
	"fmt"
	"log/slog"

	"meshd/lb/nft"
	"meshd/lb/rulewatch"
)

// nftables measures our driver, at three sizes and at kube-proxy's, and
// kube-proxy's layout.
func (b *bench) nftables() error {
	sizes, theirs := []int{1000, 3000, 10000}, 3000
	if b.quick {
		sizes, theirs = []int{100, 300}, 300
	}
	for _, services := range sizes {
		err := b.repeat(func(n *namespace) error { return b.nftRun(n, services) })
		if err != nil {
			return fmt.Errorf("%d services: %w", services, err)
		}
	}
	if err := b.repeat(func(n *namespace) error { return b.kubeProxyRun(n, theirs, 10) }); err != nil {
		return fmt.Errorf("kube-proxy's layout: %w", err)
	}
	return nil
}

// rounds is how often each cold load is measured.
const rounds = 3

// fresh runs f in a namespace of its own, when the kernel has done with the
// one before: it takes namespaces apart in the background.
func (b *bench) fresh(f func(n *namespace) error) error {
	if b.instructions {
		if err := b.waitIdle(); err != nil {
			return err
		}
	}
	return inNamespace(f)
}

// repeat runs f several times, each in a namespace of its own, and prints the
// medians.
func (b *bench) repeat(fs ...func(n *namespace) error) error {
	for range rounds {
		for _, f := range fs {
			if err := b.fresh(f); err != nil {
				return err
			}
		}
		if b.quick {
			break
		}
	}
	b.print()
	return nil
}

func (b *bench) nftRun(n *namespace, services int) error {
	cfg := nft.Config{NetNS: n.path(), Log: slog.New(slog.DiscardHandler)}
	if b.heard {
		w := rulewatch.New(func(own func(uint32) bool) (rulewatch.Kernel, error) { return rulewatch.Open(n.path(), own) },
			cfg.Log)
		cfg.Listener = w
		ctx, stop := context.WithCancel(b.ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = w.Run(ctx) // returns nil
		}()
		defer func() { stop(); <-ended }()
	}
	d, err := nft.New(cfg)
	if err != nil {
		return err
	}
	defer d.Close()
	return b.driverRun(d, services, 10)
}
