package vm

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// module is one loadable module of a kernel.
type module struct {
	name string
	path string   // of its file on this machine
	deps []string // names, as the module itself tells
}

// Modules returns the files of the named modules and of all that they need,
// each after the ones it needs. tree is a directory of modules, as
// /lib/modules/VERSION. A name that is built into the kernel needs no file.
// "-" and "_" are the same in a name, as everywhere with modules. A name with a ?
// behind it may be of no module: some became a part of others.
func Modules(tree string, names []string) ([]string, error) {
	builtin, err := builtinModules(filepath.Join(tree, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	files, err := moduleFiles(tree)
	if err != nil {
		return nil, err
	}
	names = slices.Clone(names)
	for i, name := range names {
		names[i] = strings.TrimSuffix(name, "?")
		if _, ok := files[canonical(names[i])]; !ok && names[i] != name {
			names[i] = ""
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	return loadOrder(names, builtin, func(name string) (module, error) {
		path, ok := files[name]
		if !ok {
			return module{}, fmt.Errorf("this kernel (%s) has no module %q", tree, name)
		}
		return readModule(name, path)
	})
}

// loadOrder walks the dependencies depth first.
func loadOrder(names []string, builtin map[string]bool, find func(string) (module, error)) ([]string, error) {
	var order []string
	done := map[string]bool{}
	var visit func(name string, above []string) error
	visit = func(name string, above []string) error {
		name = canonical(name)
		if slices.Contains(above, name) {
			return fmt.Errorf("modules need each other in a circle: %s", strings.Join(append(above, name), " → "))
		}
		if done[name] || builtin[name] {
			return nil
		}
		m, err := find(name)
		if err != nil {
			if len(above) > 0 {
				return fmt.Errorf("%w, which %s needs", err, above[len(above)-1])
			}
			return err
		}
		for _, dep := range m.deps {
			if err := visit(dep, append(slices.Clip(above), name)); err != nil {
				return err
			}
		}
		done[name] = true
		order = append(order, m.path)
		return nil
	}
	for _, name := range names {
		if err := visit(name, nil); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// canonical writes a module's name as the kernel does.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleName is the name of the module in a file.
func moduleName(path string) string { return canonical(strings.TrimSuffix(filepath.Base(path), ".ko")) }

// moduleFiles finds every module file below a directory.
func moduleFiles(tree string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".ko") {
			files[moduleName(path)] = path
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no kernel modules (*.ko) below %s; compressed ones are not understood", tree)
	}
	return files, err
}

// builtinModules reads modules.builtin: one path per line.
func builtinModules(path string) (map[string]bool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("list what is built into the kernel: %w", err)
	}
	names := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			names[moduleName(line)] = true
		}
	}
	return names, nil
}

// readModule reads what a module needs from the module itself, so that no
// modules.dep is needed, which Debian's package does not carry.
func readModule(name, path string) (module, error) {
	f, err := os.Open(path)
	if err != nil {
		return module{}, err
	}
	defer f.Close()
	deps, err := moduleDeps(f)
	if err != nil {
		return module{}, fmt.Errorf("module %s: %w", path, err)
	}
	return module{name: name, path: path, deps: deps}, nil
}

// maxModInfo bounds the section that is read; real ones have a few KiB.
const maxModInfo = 1 << 20

// moduleDeps reads the names in "depends=" of the section .modinfo.
func moduleDeps(r io.ReaderAt) ([]string, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("no section .modinfo: not a kernel module")
	}
	if s.Size > maxModInfo {
		return nil, fmt.Errorf("section .modinfo has %d bytes, more than %d", s.Size, maxModInfo)
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	var deps []string
	for one := range bytes.SplitSeq(info, []byte{0}) {
		list, ok := bytes.CutPrefix(one, []byte("depends="))
		if !ok {
			continue
		}
		for dep := range strings.SplitSeq(string(list), ",") {
			if dep != "" {
				deps = append(deps, canonical(dep))
			}
		}
	}
	return deps, nil
}

// DefaultModules is what the tests of this repository need of a kernel, as far
// as it is not built in.
func DefaultModules() []string {
	return strings.Fields(`
		ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh ip_vs_mh ip_vs_dh ip_vs_sed ip_vs_nq ip_vs_fo ip_vs_ovf
		ip_vs_lblc ip_vs_lblcr
		nf_tables nfnetlink nf_conntrack nf_conntrack_netlink nf_nat
		nft_chain_nat nft_nat nft_masq nft_redir nft_reject nft_reject_inet nft_reject_ipv4 nft_reject_ipv6
		nft_numgen nft_hash nft_ct nft_fib nft_fib_ipv4 nft_fib_ipv6 nft_fib_inet nft_limit nft_log nft_objref? nft_quota
		veth dummy bridge vxlan tun sch_netem sch_tbf sch_prio sch_ingress cls_u32 act_mirred act_gact
		inet_diag tcp_diag udp_diag`)
}
