//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	mdlayher "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"meshd/lb"
	"meshd/state"
)

// kubeProxy programs nftables in the layout that kube-proxy documents for its
// nftables mode: a map from service address to a chain per service, which picks
// by a random number from a map of its own to a chain per endpoint, which
// translates. Written with the library that our driver uses, without the nft
// tool that kube-proxy starts, and without its filters.
//
//	map service-ips     ip daddr . meta l4proto . th dport : goto service chain
//	chain service-…     numgen random mod 10 vmap { 0 : goto endpoint-…, … }
//	chain endpoint-…    ip saddr <endpoint> jump mark-for-masquerade; meta l4proto tcp dnat to <endpoint>
type kubeProxy struct {
	c     *nftables.Conn
	table *nftables.Table
	ips   *nftables.Set
}

const markChain = "mark-for-masquerade"

func newKubeProxy(n *namespace) (*kubeProxy, error) {
	grow := func(c *mdlayher.Conn) error {
		return errors.Join(c.SetWriteBuffer(512<<20), c.SetReadBuffer(1<<30))
	}
	c, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(n.file.Fd())), nftables.WithSockOptions(grow))
	if err != nil {
		return nil, err
	}
	k := &kubeProxy{c: c, table: &nftables.Table{Name: "kube-proxy", Family: nftables.TableFamilyIPv4}}
	k.ips = &nftables.Set{
		Table: k.table, ID: 1, Name: "service-ips", IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
		DataType: nftables.TypeVerdict,
	}
	return k, nil
}

func (k *kubeProxy) close() { _ = k.c.CloseLasting() }

// base makes what does not depend on services.
func (k *kubeProxy) base() error {
	k.c.AddTable(k.table)
	if err := k.c.AddSet(k.ips, nil); err != nil {
		return err
	}
	k.chain(markChain, []expr.Any{
		&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, 0x4000)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	})
	k.chain("services", []expr.Any{
		&expr.Payload{DestRegister: 8, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 9},
		&expr.Payload{DestRegister: 10, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{
			SourceRegister: 8, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: k.ips.Name,
			SetID: k.ips.ID,
		},
	})
	for _, hook := range []struct {
		name string
		hook *nftables.ChainHook
	}{{"nat-prerouting", nftables.ChainHookPrerouting}, {"nat-output", nftables.ChainHookOutput}} {
		chain := k.c.AddChain(&nftables.Chain{
			Table: k.table, Name: hook.name, Type: nftables.ChainTypeNAT,
			Hooknum: hook.hook, Priority: nftables.ChainPriorityNATDest,
		})
		k.c.AddRule(&nftables.Rule{
			Table: k.table, Chain: chain,
			Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "services"}},
		})
	}
	return k.c.Flush()
}

// chain queues a chain with these rules.
func (k *kubeProxy) chain(name string, rules ...[]expr.Any) {
	chain := k.c.AddChain(&nftables.Chain{Table: k.table, Name: name})
	for _, exprs := range rules {
		k.c.AddRule(&nftables.Rule{Table: k.table, Chain: chain, Exprs: exprs})
	}
}

// chainName is unique and long, as kube-proxy's are: it has a hash, and the
// names of namespace, service, protocol and port.
func chainName(kind string, parts ...any) string {
	h := fnv.New32a()
	fmt.Fprintln(h, parts...)
	return fmt.Sprintf("%s-%08X-default/service-%v/tcp/http__%v", kind, h.Sum32(), parts[0], parts[len(parts)-1])
}

func serviceChain(i int) string { return chainName("service", i) }

func endpointChain(i int, b lb.Backend) string { return chainName("endpoint", i, b.Addr) }

// endpoint queues the chain of an endpoint.
func (k *kubeProxy) endpoint(i int, b lb.Backend) {
	addr, port := b.Addr.Addr().AsSlice(), binary.BigEndian.AppendUint16(nil, b.Addr.Port())
	k.chain(endpointChain(i, b), []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addr},
		&expr.Verdict{Kind: expr.VerdictJump, Chain: markChain},
	}, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(state.TCP)}},
		&expr.Immediate{Register: 1, Data: addr},
		&expr.Immediate{Register: 2, Data: port},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	})
}

// pick queues the rule of a service chain, with its map.
func (k *kubeProxy) pick(i int, backends []lb.Backend) error {
	set := &nftables.Set{
		Table: k.table, Anonymous: true, Constant: true, IsMap: true,
		KeyType: nftables.TypeInteger, DataType: nftables.TypeVerdict,
	}
	set.KeyType.Bytes = 4
	elems := make([]nftables.SetElement, len(backends))
	for j, b := range backends {
		elems[j] = nftables.SetElement{
			Key:         binary.NativeEndian.AppendUint32(nil, uint32(j)),
			VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: endpointChain(i, b)},
		}
	}
	if err := k.c.AddSet(set, elems); err != nil {
		return err
	}
	k.c.AddRule(&nftables.Rule{
		Table: k.table, Chain: &nftables.Chain{Table: k.table, Name: serviceChain(i)},
		Exprs: []expr.Any{
			&expr.Numgen{Register: 1, Modulus: uint32(len(backends)), Type: unix.NFT_NG_RANDOM},
			&expr.Lookup{
				SourceRegister: 1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set.Name,
				SetID: set.ID,
			},
		},
	})
	return nil
}

// load programs everything in one transaction, as kube-proxy's first does.
func (k *kubeProxy) load(services, backends int) error {
	var ips []nftables.SetElement
	for i := range services {
		list := make([]lb.Backend, backends)
		for j := range list {
			list[j] = backend(i, j)
			k.endpoint(i, list[j])
		}
		k.chain(serviceChain(i))
		if err := k.pick(i, list); err != nil {
			return err
		}
		ips = append(ips, nftables.SetElement{
			Key:         serviceKey(key(i)),
			VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: serviceChain(i)},
		})
	}
	const perMessage = 400 // an attribute holds 64 KiB
	for len(ips) > 0 {
		n := min(perMessage, len(ips))
		if err := k.c.SetAddElements(k.ips, ips[:n]); err != nil {
			return err
		}
		ips = ips[n:]
	}
	return k.c.Flush()
}

func serviceKey(key lb.Key) []byte {
	b := append(key.VIP.AsSlice(), byte(key.Proto), 0, 0, 0)
	return append(binary.BigEndian.AppendUint16(b, key.Port), 0, 0)
}

// replace gives a service another endpoint in the place of one: a chain comes,
// the rule of the service's chain is replaced, a chain goes.
func (k *kubeProxy) replace(i int, backends []lb.Backend, del, add lb.Backend) error {
	k.endpoint(i, add)
	k.c.FlushChain(&nftables.Chain{Table: k.table, Name: serviceChain(i)})
	if err := k.pick(i, backends); err != nil {
		return err
	}
	gone := &nftables.Chain{Table: k.table, Name: endpointChain(i, del)}
	k.c.FlushChain(gone)
	k.c.DelChain(gone)
	return k.c.Flush()
}

func (b *bench) kubeProxyRun(n *namespace, services, backends int) error {
	k, err := newKubeProxy(n)
	if err != nil {
		return err
	}
	defer k.close()
	if err := k.base(); err != nil {
		return fmt.Errorf("base: %w", err)
	}
	w := what{"nft", "kubeproxy", "cold", services, backends}
	c, err := measure(func() error { return k.load(services, backends) })
	if err != nil {
		return fmt.Errorf("cold load: %w", err)
	}
	b.report.add(w, c)
	w.op = "change"
	at := services / 2
	list := make([]lb.Backend, backends)
	for j := range list {
		list[j] = backend(at, j)
	}
	old, other := list[0], backend(at, backends)
	times := b.changes() / 10
	c, err = measureEach(times, func(i int) error {
		del, add := old, other
		if i%2 == 1 {
			del, add = other, old
		}
		list[0] = add
		return k.replace(at, list, del, add)
	})
	if err != nil {
		return fmt.Errorf("change: %w", err)
	}
	b.report.add(w, c, "change=move")
	return nil
}
