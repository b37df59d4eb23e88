package vm

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// modinfo makes an object file with a section .modinfo.
func modinfo(info string) []byte {
	const header, names = 64, "\x00.modinfo\x00.shstrtab\x00"
	var b bytes.Buffer
	h := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Ehsize: header, Shentsize: 64, Shnum: 3, Shstrndx: 2, Shoff: uint64(header + len(info) + len(names)),
	}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: header, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(header + len(info)), Size: uint64(len(names))},
	}
	_ = binary.Write(&b, binary.LittleEndian, h)
	b.WriteString(info + names)
	_ = binary.Write(&b, binary.LittleEndian, sections)
	return b.Bytes()
}

// tree makes a directory of modules: name → what it depends on.
func tree(t *testing.T, builtin string, modules map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "modules.builtin"), []byte(builtin))
	for name, deps := range modules {
		write(t, filepath.Join(dir, "kernel", "net", name+".ko"), modinfo("license=GPL\x00depends="+deps+"\x00name=x\x00"))
	}
	return dir
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	dir := tree(t, "kernel/lib/libcrc32c.ko\nkernel/net/ipv6/ipv6.ko\n", map[string]string{
		"ip_vs": "nf_conntrack,libcrc32c,nf_defrag_ipv6", "ip_vs_rr": "ip_vs",
		"nf_conntrack":   "nf_defrag_ipv6,nf_defrag_ipv4",
		"nf_defrag_ipv6": "", "nf_defrag_ipv4": "", "nft-chain-nat": "nf_nat", "nf_nat": "nf_conntrack", "unused": "",
	})
	files, err := Modules(dir, []string{"ip_vs_rr", "ipv6", "gone?", "nft_chain_nat", "ip-vs?"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, moduleName(f))
	}
	want := "nf_defrag_ipv6 nf_defrag_ipv4 nf_conntrack ip_vs ip_vs_rr nf_nat nft_chain_nat"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestModulesThatCannotBeLoaded(t *testing.T) {
	for _, tt := range []struct {
		name    string
		modules map[string]string
		want    string
	}{
		{"circle", map[string]string{"a": "b", "b": "c", "c": "a"}, "in a circle: a → b → c → a"},
		{"itself", map[string]string{"a": "a"}, "in a circle: a → a"},
		{"missing", map[string]string{"b": ""}, `no module "a"`},
		{"missing below", map[string]string{"a": "b", "b": "c"}, `no module "c", which b needs`},
		{"none at all", nil, "no kernel modules"},
	} {
		if _, err := Modules(tree(t, "", tt.modules), []string{"a"}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := Modules(t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "built into") {
		t.Errorf("no modules.builtin: %v", err)
	}
	dir := tree(t, "", map[string]string{"a": ""})
	write(t, filepath.Join(dir, "kernel", "net", "a.ko"), []byte("not an object file"))
	if _, err := Modules(dir, []string{"a"}); err == nil || !strings.Contains(err.Error(), "a.ko") {
		t.Errorf("a broken module: %v", err)
	}
}

func TestModuleDeps(t *testing.T) {
	for info, want := range map[string][]string{
		"depends=\x00":                             nil,
		"license=GPL\x00":                          nil,
		"depends=a,b-c\x00":                        {"a", "b_c"},
		"description=it depends=x\x00depends=y":    {"y"},
		"depends=a\x00depends=b\x00":               {"a", "b"},
		"depends=,\x00" + strings.Repeat("x", 1e5): nil,
	} {
		got, err := moduleDeps(bytes.NewReader(modinfo(info)))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%.40q: got %v, %v, want %v", info, got, err, want)
		}
	}
	if _, err := moduleDeps(bytes.NewReader(modinfo(strings.Repeat("x", maxModInfo+1)))); err == nil {
		t.Error("a section of more than 1 MiB was read")
	}
	other := bytes.Replace(modinfo(""), []byte(".modinfo"), []byte(".another"), 1)
	if _, err := moduleDeps(bytes.NewReader(other)); err == nil || !strings.Contains(err.Error(), "no section .modinfo") {
		t.Errorf("an object file that is no module: %v", err)
	}
}

func FuzzModuleDeps(f *testing.F) {
	f.Add(modinfo("depends=a,b\x00"))
	f.Add(modinfo(""))
	f.Add([]byte(elf.ELFMAG))
	f.Fuzz(func(t *testing.T, b []byte) {
		deps, err := moduleDeps(bytes.NewReader(b))
		for _, d := range deps {
			if err != nil || d == "" || strings.ContainsAny(d, ",-\x00") {
				t.Fatalf("%q, %v", deps, err)
			}
		}
	})
}

// The default list has no duplicates, and names as the kernel writes them.
func TestDefaultModules(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range DefaultModules() {
		if seen[m] || m != canonical(m) {
			t.Errorf("%s is there twice or badly written", m)
		}
		seen[m] = true
	}
	for _, s := range []string{"rr", "wrr", "lc", "wlc", "sh", "mh", "dh", "sed", "nq", "fo", "ovf", "lblc", "lblcr"} {
		if !seen["ip_vs_"+s] {
			t.Errorf("scheduler %s is missing", s)
		}
	}
}
