//go:build linux

package hostkind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"meshd/test/rig"
)

// patience bounds the start of a program.
const patience = 30 * time.Second

// begin runs a script that goes on, in mounts and processes of its own, which end
// with it. It waits until the script has made the file $READY.
func begin(h *rig.Host, name, script string) error {
	ready, err := filepath.Abs(filepath.Join(h.LogDir(), h.Name+"-"+name+".ready"))
	if err != nil {
		return err
	}
	p, err := h.Start(name, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec",
		"READY='"+ready+"'"+script)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), rig.Patience(patience))
	defer cancel()
	var ended error
	err = rig.Poll(ctx, func() error {
		select {
		case <-p.Done():
			ended = fmt.Errorf("%s ended: %w", name, p.Err())
			return nil
		default:
		}
		_, err := os.Stat(ready)
		return err
	})
	if err = errors.Join(err, ended); err != nil {
		text, _ := os.ReadFile(p.Log)
		return fmt.Errorf("%s is not ready: %w\n%s", name, err, text)
	}
	return nil
}

// docker starts an engine, without containers. Its bridge is docker0, that of the
// host's tasks if it has the name.
func docker(h *rig.Host) error {
	// Without an IPv6 network, Docker takes IPv6 from its bridge.
	return begin(h, "dockerd", `
NETWORK6='`+h.Subnet6.String()+`'
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
dockerd --data-root /var/lib/docker --exec-root /run/docker --pidfile /run/docker.pid --host unix:///run/docker.sock --storage-driver vfs --ipv6 --fixed-cidr-v6 "$NETWORK6" >/run/log 2>&1 &
until grep -q 'API listen on' /run/log; do kill -0 $! || { cat /run/log; exit 1; }; sleep 0.1; done
: >"$READY"
wait`)
}

// firewalld starts firewalld and the bus that it needs, with the zones of its package.
func firewalld(h *rig.Host) error {
	return begin(h, "firewalld", `
mount -t tmpfs none /run
mkdir -p /run/dbus
dbus-daemon --system --fork --nopidfile
firewalld --nofork --nopid &
until firewall-cmd --state; do kill -0 $!; sleep 0.1; done
: >"$READY"
wait`)
}

// ufw enables ufw as its package is installed, in copies of its files.
func ufw(h *rig.Host) error {
	_, err := output(h, "unshare", "--mount", "sh", "-ec", `
mount -t tmpfs none /run
mkdir /run/ufw-files
cp -a /etc/ufw /run/ufw-files/etc
cp -a /etc/default/ufw /run/ufw-files/default
mount --bind /run/ufw-files/etc /etc/ufw
mount --bind /run/ufw-files/default /etc/default/ufw
ufw --force enable`)
	return err
}
