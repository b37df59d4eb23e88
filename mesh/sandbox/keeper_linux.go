package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ServeKeeper is the main function of a child of a Keeper: it reads one task from
// in, does it, writes the reply to out, and returns the exit code. It gives up
// every privilege of the process.
func ServeKeeper(in io.Reader, out io.Writer) int {
	runtime.LockOSThread() // capabilities belong to threads
	time.AfterFunc(2*keeperTime, func() { os.Exit(1) })
	var task keeperTask
	if err := json.NewDecoder(io.LimitReader(in, keeperInput)).Decode(&task); err != nil {
		fmt.Fprintln(os.Stderr, "unreadable task:", err)
		return 2
	}
	reply := task.run()
	if err := json.NewEncoder(out).Encode(reply); err != nil {
		return 1
	}
	return 0
}

func (task *keeperTask) run() keeperReply {
	f, err := enter(task.Conf)
	applied := false
	if err == nil {
		defer f.close()
		switch task.Do {
		case doPlan:
			err = f.plan(task.Name)
		case doApply:
			err = f.apply()
		case doRestore:
			err = f.restore()
		case doLook:
			applied, err = f.applied()
		default:
			err = fmt.Errorf("%q is no task", task.Do)
		}
		err = f.explain(err)
	}
	reply := keeperReply{Applied: applied, Changed: errors.Is(err, ErrChanged)}
	if err != nil {
		reply.Error = strings.TrimSuffix(err.Error(), ": "+ErrChanged.Error())
		return reply
	}
	reply.Conf = f.ResolvConf
	return reply
}

// file is a resolv.conf, as a process works on it that has become its owner.
type file struct {
	ResolvConf
	root  int        // an O_PATH descriptor of the directory at which Path begins
	owner int        // the user of this process: no other user's files are touched
	host  []hostFile // the machine's own files
	boot  string     // the kernel's boot id
}

type hostFile struct{ dev, ino uint64 }

func (f *file) close() { _ = unix.Close(f.root) }

// enter opens the root of the file system, and becomes its root user.
//
// The order matters. The root is opened before its owner is determined, since a
// process can only go deeper into user namespaces. And all that only the machine's
// root may see is read before that privilege is given up.
func enter(conf ResolvConf) (*file, error) {
	f := &file{ResolvConf: conf, host: hostFiles()}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	f.boot = strings.TrimSpace(string(boot))
	pid, err := conf.process()
	if err != nil {
		return nil, err
	}
	root := "/"
	if pid > 0 {
		root = conf.Root
	}
	if f.root, err = unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, f.explain(err)
	}
	user := identity{os.Geteuid(), os.Getegid()}
	if pid > 0 {
		user, err = rootUser(pid)
		if now, gone := startTime(pid); err == nil && (gone != nil || now != conf.Start) {
			err = fmt.Errorf("%w: process %d has ended", ErrGone, pid)
		}
	}
	if err == nil {
		err = become(user)
	}
	if err != nil {
		f.close()
		return nil, f.explain(err)
	}
	f.owner = user.uid
	return f, nil
}

// hostFiles are the files by which the machine itself finds its name servers.
func hostFiles() []hostFile {
	var all []hostFile
	for _, path := range []string{
		"/etc/resolv.conf", "/run/resolvconf/resolv.conf", "/etc/resolvconf/run/resolv.conf",
		"/run/systemd/resolve/resolv.conf", "/run/systemd/resolve/stub-resolv.conf", "/usr/lib/systemd/resolv.conf",
		"/run/NetworkManager/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf",
	} {
		if dev, ino, err := inode(path); err == nil {
			all = append(all, hostFile{dev, ino})
		}
	}
	return all
}

// identity is a user and its group, as this process numbers them.
type identity struct{ uid, gid int }

// nsGetUserns is the request NS_GET_USERNS of ioctl_ns(2).
const nsGetUserns = 0xb701

// rootUser returns who is root to a process, in terms of this one.
func rootUser(pid int) (identity, error) {
	none := identity{}
	at := fmt.Sprintf("/proc/%d/", pid)
	ownDev, own, err := inode("/proc/self/ns/user")
	if err != nil {
		return none, err
	}
	theirDev, their, err := inode(at + "ns/user")
	if err != nil {
		return none, err
	}
	dev, ino, err := mountOwner(at + "ns/mnt")
	if err != nil {
		return none, err
	}
	same := theirDev == ownDev && their == own
	if (dev != theirDev || ino != their) && (dev != ownDev || ino != own || same) {
		return none, errMixed
	}
	if same {
		return identity{}, nil
	}
	uid, err := mappedRoot(at + "uid_map")
	if err != nil {
		return none, err
	}
	gid, err := mappedRoot(at + "gid_map")
	return identity{uid, gid}, err
}

var errMixed = errors.New("its mounts are another user namespace's than the process: name its resolv.conf by a path " +
	"of the host")

// mountOwner returns the user namespace whose root may mount in a mount
// namespace.
func mountOwner(path string) (dev, ino uint64, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(fd)
	owner, err := unix.IoctlRetInt(fd, nsGetUserns)
	if errors.Is(err, unix.EPERM) {
		return 0, 0, errMixed
	}
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(owner)
	var st unix.Stat_t
	err = unix.Fstat(owner, &st)
	return st.Dev, st.Ino, err
}

// mappedRoot reads which user or group a user namespace calls 0. The kernel gives
// the numbers as this process sees them, which is what it needs.
func mappedRoot(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var inside, outside, count uint32
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		if inside == 0 && count > 0 && outside != ^uint32(0) {
			return int(outside), nil
		}
	}
	return 0, errors.New("its user namespace has no root: name its resolv.conf by a path of the host")
}
