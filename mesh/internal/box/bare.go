package box

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"meshd/mesh/sandbox"
)

// The bounds of questions to a container's former name server.
const (
	bareLimit   = 2 * time.Second // for one question
	bareAtOnce  = 64              // questions
	bareServers = 4               // servers that are asked, one after the other
	bareKept    = time.Second     // how long it is believed that there is none, and which one there is
	bareTable   = 1 << 20         // bytes of the kernel's table of sockets that are read
)

// former is the name server that a container had before meshd: an engine's, which knows
// the names of its containers and networks. It listens on a port of 127.0.0.11 that the
// engine chooses anew at each of its starts, so it is looked up again and again, and
// whenever it does not answer. The zero value is ready. It is safe for concurrent use.
type former struct {
	mu      sync.Mutex // guards what follows
	ports   []uint16   // on which one listens
	at      time.Time  // when they were looked up
	running int        // questions
}

var errBusy = errors.New("too many questions to the container's own name server at once")

// ask asks the container's own name server for a bare name that no network knows. nil
// without an error: there is none.
func (b *Sandbox) ask(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	f := &b.former
	f.mu.Lock()
	busy := f.running >= bareAtOnce
	if !busy {
		f.running++
	}
	f.mu.Unlock()
	if busy {
		return nil, errBusy
	}
	defer func() {
		f.mu.Lock()
		f.running--
		f.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, bareLimit)
	defer cancel()
	asked, last := []uint16{}, error(nil)
	for again := range 2 { // again: the engine may have been restarted since they were looked up
		ports, err := b.formerPorts(again == 1)
		if err != nil {
			return nil, err
		}
		for _, p := range ports {
			if slices.Contains(asked, p) {
				continue
			}
			asked = append(asked, p)
			reply, err := b.exchange(ctx, q, p)
			if err == nil {
				return reply, nil
			}
			last = err
		}
	}
	return nil, last
}

// formerPorts returns the ports of 127.0.0.11 on which others than meshd listen.
func (b *Sandbox) formerPorts(anew bool) (ports []uint16, err error) {
	f := &b.former
	f.mu.Lock()
	defer f.mu.Unlock()
	if !anew && time.Since(f.at) < bareKept {
		return f.ports, nil
	}
	own, _ := b.names.port()
	err = b.ns.Do(func() error {
		table, err := os.Open("/proc/thread-self/net/udp")
		if err != nil {
			return err
		}
		defer table.Close()
		ports = listening(io.LimitReader(table, bareTable), sandbox.ServerAddr.Addr(), own)
		return nil
	})
	if err == nil {
		f.ports, f.at = ports, time.Now()
	}
	return ports, err
}

// listening returns the first ports of an address in the kernel's table of sockets, but
// for one.
func listening(table io.Reader, at netip.Addr, not uint16) (ports []uint16) {
	raw := at.As4()
	binary.NativeEndian.PutUint32(raw[:], binary.BigEndian.Uint32(raw[:])) // as the kernel prints it
	want := strings.ToUpper(hex.EncodeToString(raw[:]))
	lines := bufio.NewScanner(table)
	for lines.Scan() && len(ports) < bareServers {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		addr, port, _ := strings.Cut(fields[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		if err == nil && addr == want && uint16(n) != not && strings.HasSuffix(fields[2], ":0000") {
			ports = append(ports, uint16(n))
		}
	}
	return ports
}

// exchange asks one server, from inside.
func (b *Sandbox) exchange(ctx context.Context, q *dns.Msg, port uint16) (*dns.Msg, error) {
	var conn net.Conn
	err := b.ns.Do(func() (err error) {
		at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(sandbox.ServerAddr.Addr(), port))
		conn, err = net.DialUDP("udp4", nil, at) // on this thread, so inside
		return err
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	own := q.Copy()
	own.Id = dns.Id()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	reply, _, err := new(dns.Client).ExchangeWithConnContext(ctx, own, &dns.Conn{Conn: conn})
	return reply, err
}
