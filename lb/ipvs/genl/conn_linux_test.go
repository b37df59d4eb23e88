package genl

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeSocket answers as a kernel: refuse gives the errno of a request by its
// number in order of sending.
type fakeSocket struct {
	refuse   func(n int) unix.Errno
	dump     [][]byte // datagrams of the next dump, without sequence numbers
	queue    [][]byte // datagrams to be received
	fail     []error  // what the next receives return instead
	requests int
	writes   []int // requests in each
	acks     int
}

func (f *fakeSocket) send(b []byte) error {
	f.writes = append(f.writes, 0)
	for len(b) > 0 {
		m, rest, err := nextMessage(b)
		if err != nil {
			return err
		}
		b = rest
		f.writes[len(f.writes)-1]++
		f.answer(&m)
		f.requests++
	}
	return nil
}

func (f *fakeSocket) answer(m *message) {
	if m.flags&flagDump == flagDump {
		for _, d := range f.dump {
			d = slices.Clone(d)
			for rest := d; len(rest) >= headerLen; {
				native.PutUint32(rest[8:], m.seq)
				_, rest, _ = nextMessage(rest)
			}
			f.queue = append(f.queue, d)
		}
		return
	}
	errno := f.refuse(f.requests)
	if m.flags&flagAck != 0 {
		f.acks++
	}
	if errno != 0 || m.flags&flagAck != 0 {
		f.queue = append(f.queue, verdict(typeError, m.seq, errno))
	}
}

func verdict(kind uint16, seq uint32, errno unix.Errno) []byte {
	b := native.AppendUint32(nil, headerLen+4)
	b = native.AppendUint16(b, kind)
	b = native.AppendUint16(b, 0)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0)
	return native.AppendUint32(b, -uint32(errno))
}

func (f *fakeSocket) receive(b []byte) (int, error) {
	if len(f.fail) > 0 {
		err := f.fail[0]
		f.fail = f.fail[1:]
		return 0, err
	}
	if len(f.queue) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, f.queue[0])
	f.queue = f.queue[1:]
	return n, nil
}

func (f *fakeSocket) close() error { return nil }

func none(int) unix.Errno { return 0 }

// Errors come back to the requests that caused them; writes and
// acknowledgements are few.
func TestDo(t *testing.T) {
	refusals := map[int]unix.Errno{0: unix.EEXIST, 511: unix.ESRCH, 512: unix.ENOENT, 700: unix.EINVAL, 1199: unix.EPERM}
	sock := &fakeSocket{refuse: func(n int) unix.Errno { return refusals[n] }}
	c := newConn(sock, 0x20)
	c.seq = ^uint32(0) - 600 // numbers wrap
	reqs := make([]Request, 1200)
	for i := range reqs {
		reqs[i] = golden[i%len(golden)].req
	}
	errs := c.Do(reqs)
	if len(errs) != len(reqs) {
		t.Fatalf("%d answers", len(errs))
	}
	for i, err := range errs {
		want := error(nil)
		if e, ok := refusals[i]; ok {
			want = e
		}
		if !errors.Is(err, want) {
			t.Errorf("request %d: %v, want %v", i, err, want)
		}
	}
	if len(sock.writes) > 4 || sock.acks != len(sock.writes) {
		t.Errorf("writes %v, %d acknowledgements; want one per write", sock.writes, sock.acks)
	}
	sock.refuse = none
	if errs := c.Do(reqs); errs != nil {
		t.Errorf("%v, want nil when all succeed", errs)
	}
	if errs := c.Do(nil); errs != nil {
		t.Error(errs)
	}
}

// A write is at most 64 KiB.
func TestWriteSize(t *testing.T) {
	c := newConn(&fakeSocket{refuse: none}, 0x20)
	reqs := slices.Repeat([]Request{{Command: NewDestination, Service: dns6, Destination: golden[5].req.Destination}},
		maxMessages)
	n := c.encode(reqs)
	if len(c.out) > maxBytes || n < 300 || c.seq != uint32(n) {
		t.Errorf("%d requests, %d bytes, number %d", n, len(c.out), c.seq)
	}
	_, rest, _ := nextMessage(c.out)
	for len(rest) > 0 {
		m, next, err := nextMessage(rest)
		if err != nil || (m.flags&flagAck != 0) != (len(next) == 0) {
			t.Fatalf("flags %#x with %d bytes after it, %v", m.flags, len(next), err)
		}
		rest = next
	}
}

// Lost answers are told; what arrives late is not taken for something else.
func TestLostAnswers(t *testing.T) {
	for _, lost := range []error{unix.ENOBUFS, os.ErrDeadlineExceeded} {
		sock := &fakeSocket{refuse: func(n int) unix.Errno { return unix.Errno(17 * (1 - min(n, 1))) }}
		c := newConn(sock, 0x20)
		sock.fail = []error{lost}
		for i, err := range c.Do([]Request{golden[0].req, golden[1].req}) {
			if !errors.Is(err, ErrLost) || !errors.Is(err, lost) {
				t.Errorf("request %d: %v, want lost", i, err)
			}
		}
		if errs := c.Do([]Request{golden[0].req}); errs != nil { // the first answers are still there
			t.Errorf("%v, want no late answer", errs)
		}
	}
}

func TestGarbage(t *testing.T) {
	sock := &fakeSocket{refuse: none, queue: [][]byte{{1, 2, 3}}}
	if errs := newConn(sock, 0x20).Do([]Request{golden[0].req}); len(errs) != 1 || !errors.Is(errs[0], ErrMalformed) {
		t.Error(errs)
	}
}

// A dump that the table changed under is read again, not for ever.
func TestInterruptedDump(t *testing.T) {
	page := append(answer(&web, 0), answer(&dns6, 0)...)
	bad := slices.Clone(page)
	bad[6] |= flagIntr
	done := verdict(typeDone, 0, 0)
	for _, c := range []struct {
		dump [][]byte
		want error
	}{
		{[][]byte{page, answer(&mark6, 0), done}, nil},
		{[][]byte{bad, done}, ErrInterrupted},
		{[][]byte{page, verdict(typeDone, 0, unix.EINTR)}, unix.EINTR},
		{[][]byte{page}, ErrLost},
	} {
		sock := &fakeSocket{refuse: none, dump: c.dump}
		list, err := newConn(sock, 0x20).Services()
		if !errors.Is(err, c.want) || err == nil && !slices.Equal(list, []Service{web, dns6, mark6}) {
			t.Errorf("%v: %v, %v", c.want, list, err)
		}
		if len(sock.writes) > dumpAttempts {
			t.Errorf("%d attempts", len(sock.writes))
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	c := newConn(&fakeSocket{refuse: none}, 0x20)
	reqs := make([]Request, maxMessages)
	for i := range reqs {
		reqs[i] = golden[4].req
	}
	b.ReportAllocs()
	for b.Loop() {
		c.encode(reqs)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/maxMessages, "ns/request")
}

func ExampleConn_Do() {
	c := newConn(&fakeSocket{refuse: func(n int) unix.Errno { return unix.Errno(17 * n) }}, 0x20)
	for i, err := range c.Do([]Request{{Command: NewService, Service: web}, {Command: NewService, Service: web}}) {
		fmt.Println(i, err)
	}
	// Output:
	// 0 <nil>
	// 1 file exists
}
