package hostread

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshd/test/rig"
)

// inside calls f with a socket of ours in a namespace, and with what sends messages
// to it from another one there.
func inside(t *testing.T, f func(c *conn, send func(kind uint16, sequence uint32) error) error) {
	t.Helper()
	err := rig.NewTest(t, 1).Hosts()[0].Do(func() error {
		c, err := dial(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		err = unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) // as the first question does
		own, nameless := unix.Getsockname(c.fd)
		if err = errors.Join(err, nameless); err != nil {
			return errors.Join(err, c.close())
		}
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return errors.Join(err, c.close())
		}
		err = f(c, func(kind uint16, sequence uint32) error {
			m := make([]byte, unix.SizeofNlMsghdr+linkHeader)
			binary.NativeEndian.PutUint32(m, uint32(len(m)))
			binary.NativeEndian.PutUint16(m[4:], kind)
			binary.NativeEndian.PutUint32(m[8:], sequence)
			return unix.Sendto(fd, m, unix.MSG_DONTWAIT, own)
		})
		return errors.Join(err, unix.Close(fd), c.close())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnswersOfStrangers: who has CAP_NET_ADMIN in a container's namespace can answer
// before the kernel does, and what it says is not what there is.
func TestAnswersOfStrangers(t *testing.T) {
	t.Parallel()
	inside(t, func(c *conn, send func(uint16, uint32) error) error {
		if err := errors.Join(send(unix.RTM_NEWLINK, 1), send(unix.NLMSG_DONE, 1)); err != nil {
			return err
		}
		var all []uint32 // numbers of devices
		err := c.dump(unix.RTM_GETLINK, make([]byte, linkHeader), nil, func(m []byte) error {
			all = append(all, binary.NativeEndian.Uint32(m[4:]))
			return nil
		})
		if len(all) == 0 || all[0] == 0 {
			t.Errorf("the devices %v are there", all)
		}
		return err
	})
}

// TestFloodsOfStrangers: they do not keep us reading, either, as long as a list may take.
func TestFloodsOfStrangers(t *testing.T) {
	t.Parallel()
	inside(t, func(c *conn, send func(uint16, uint32) error) error {
		c.patience = time.Hour
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					_ = send(unix.RTM_NEWLINK, 7) // no room: it is read
				}
			}
		}()
		read := make(chan error, 1)
		go func() { read <- c.receive(linkHeader, func([]byte) error { return nil }) }()
		select {
		case err := <-read:
			if !errors.Is(err, errTooMuch) {
				t.Errorf("it ends with %v, want %v", err, errTooMuch)
			}
		case <-time.After(rig.Patience(10 * time.Second)):
			t.Error("it does not end")
		}
		close(stop)
		<-stopped
		return nil
	})
}
