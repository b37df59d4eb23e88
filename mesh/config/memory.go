package config

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// The memory for the tables, in bytes (S19). The default is enough for seven million
// records, more than the largest mesh that is measured has, and leaves most of a host's
// memory to others.
const (
	tableShare            = 4       // the default is one of so many parts of the memory
	maxDefaultTableMemory = 4 << 30 // the most that the default is
	maxTableMemory        = 1 << 40 // the most that may be configured
	unknownMemory         = 4 << 30 // assumed where nothing says how much there is
	unlimitedControl      = 1 << 60 // a control group of version 1 without a limit says about 2^63
)

// tableMemory returns how many bytes of memory the tables may take (S19).
func (s *Settings) tableMemory() int {
	if s.TableMemory > 0 {
		return s.TableMemory
	}
	return defaultTableMemory(hostMemory(os.DirFS("/"), debug.SetMemoryLimit(-1)))
}

func defaultTableMemory(memory int) int {
	if memory == 0 {
		memory = unknownMemory
	}
	return min(memory/tableShare, maxDefaultTableMemory)
}

// hostMemory returns how many bytes of memory this process may use: the least of what the
// machine has, what its control groups allow, and limit, the value of GOMEMLIMIT; 0 if
// none of them is known. root is the root of the file system.
func hostMemory(root fs.FS, limit int64) int {
	least := 0
	consider := func(n int) {
		if n > 0 && n < unlimitedControl && (least == 0 || n < least) {
			least = n
		}
	}
	consider(machineMemory(root))
	if limit < math.MaxInt64 {
		consider(int(limit))
	}
	for _, file := range controlFiles(root) {
		consider(numberIn(root, file))
	}
	return least
}

// machineMemory returns the memory of the machine.
func machineMemory(root fs.FS) int {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			n, _ := strconv.Atoi(f[1])
			return n << 10
		}
	}
	return 0
}

// controlFiles returns where the limits of this process's control groups are, in
// both versions: those of the group and of all above it.
func controlFiles(root fs.FS) (files []string) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		f := strings.SplitN(lines.Text(), ":", 3) // number, controllers, path
		if len(f) != 3 {
			continue
		}
		dir, file := "", ""
		switch {
		case f[1] == "":
			dir, file = "sys/fs/cgroup", "memory.max"
		case strings.Contains(","+f[1]+",", ",memory,"):
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for group := path.Clean("/" + f[2]); ; group = path.Dir(group) {
			files = append(files, path.Join(dir, group, file))
			if group == "/" {
				break
			}
		}
	}
	return files
}

// numberIn returns the number that a file holds; 0 if there is none.
func numberIn(root fs.FS, name string) int {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}
