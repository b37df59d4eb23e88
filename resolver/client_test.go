package resolver

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"
)

// Go's own resolver, as a client: addresses, SRV, PTR, no such host.
func TestGoResolver(t *testing.T) {
	_, b := serve(t, standard(t).self, []string{"net1"})
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, b.Addr().String())
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ips, err := r.LookupHost(ctx, "web.net1.mesh.internal.")
	if slices.Sort(ips); err != nil || !slices.Equal(ips, []string{"10.1.0.5", "fd00:1::5"}) {
		t.Error(ips, err)
	}
	if ips, err = r.LookupHost(ctx, "four."); err != nil || !slices.Equal(ips, []string{"10.1.0.7"}) {
		t.Error("a name without AAAA:", ips, err)
	}
	_, srvs, err := r.LookupSRV(ctx, "http", "tcp", "web.net1.mesh.internal.")
	if err != nil || len(srvs) != 2 || srvs[0].Port != 80 {
		t.Error(srvs, err)
	}
	if names, err := r.LookupAddr(ctx, "10.1.0.5"); err != nil ||
		!slices.Equal(names, []string{"web.net1.mesh.internal."}) {
		t.Error(names, err)
	}
	var dnsErr *net.DNSError
	if _, err = r.LookupHost(ctx, "nope."); !errors.As(err, &dnsErr) || !dnsErr.IsNotFound {
		t.Error(err)
	}
}

// R3: an answer too large for UDP reaches the client over TCP as a whole.
func TestGoResolverLargeAnswer(t *testing.T) {
	_, b := serve(t, big(t, 200).self, []string{"net1"})
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, b.Addr().String())
	}}
	if ips, err := r.LookupHost(t.Context(), "big.net1.mesh.internal."); err != nil || len(ips) != 200 {
		t.Error(len(ips), err)
	}
}
