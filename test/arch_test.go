package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// mayImport is the law of DESIGN §2: for each package, which of our own
// packages it may import. A package that is not listed fails the test, so a
// new one must be given a place.
var mayImport = map[string][]string{
	"state":                 {},
	"gossip":                {"state", "gossip/transport"},
	"resolver":              {"state"},
	"lb":                    {"state", "lb/hostfacts"},
	"lb/hostfacts":          {}, // pure: what the host is, and what stands against a pool
	"lb/hostwatch":          {"lb/hostfacts"},
	"lb/rulewatch":          {},
	"lb/hostcheck":          {}, // pure: what of a host is against meshd
	"lb/hostread":           {"lb/hostcheck"},
	"lb/hostmend":           {"lb/hostcheck"},
	"lb/internal/namespace": {"lb"}, // enters network namespaces
	"lb/sysctl":             {"lb", "lb/internal/namespace"},
	"lb/holder":             {"lb/internal/namespace"},
	"lb/lbtest":             {"lb", "state"},
	"lb/ipvs":               {"lb", "lb/ipvs/genl", "lb/internal/conntrack", "lb/internal/namespace", "lb/nftconn", "lb/internal/pool", "lb/sysctl", "state"},
	"lb/ipvs/genl":          {},
	"lb/nft":                {"lb", "lb/internal/conntrack", "lb/nftconn", "lb/internal/pool", "lb/sysctl", "state"},
	// what both stand on
	"lb/internal/pool":       {"lb", "lb/internal/conntrack", "lb/internal/namespace", "lb/nftconn", "lb/sysctl", "state"},
	"lb/internal/conntrack":  {"lb", "lb/nftconn", "state"},
	"lb/nftconn":             {"lb", "state"},
	"lb/internal/linktest":   {"lb/internal/namespace", "lb/nftconn"},
	"mesh/control":           {"state"},
	"mesh/sandbox":           {},
	"mesh/internal/registry": {"state", "mesh/control", "mesh/internal/store", "mesh/source"},
	"mesh/source":            {"state", "mesh/control"}, // what finds tasks and what checks them import it, too
	"mesh/source/sourcetest": {"state", "mesh/source"},
	"mesh/health":            {}, // pure: what a check is, and what follows from its answers
	"mesh/internal/probe":    {"mesh/health"},
	"mesh/internal/checker":  {"state", "mesh/health", "mesh/internal/probe", "mesh/source"},

	"mesh/source/docker":            {"state", "mesh/control", "mesh/source", "mesh/health", "mesh/internal/notice"},
	"mesh/source/docker/dockertest": {"mesh/source/docker"},

	// The parts of a node, each tested alone.
	"mesh/internal/store":           {}, // knows no content
	"mesh/internal/store/storetest": {},
	"mesh/logqueue":                 {},
	"mesh/internal/notice":          {},
	"mesh/internal/peers":           {"state", "mesh/control"},
	"mesh/internal/compare":         {"state", "mesh/control", "mesh/internal/peers"},
	"mesh/internal/seeds":           {},
	"mesh/internal/observe":         {"state", "mesh/control", "mesh/internal/notice"},
	"mesh/internal/hostchanges":     {"lb/hostcheck", "lb/hostmend", "lb/sysctl"},
	"mesh/internal/keys":            {"state", "mesh/control", "mesh/internal/peers", "mesh/internal/store"},
	"mesh/config":                   {"state", "resolver", "lb/hostfacts", "mesh/control", "mesh/internal/keys", "mesh/internal/store"},
	"mesh/internal/watch":           {"state", "mesh/control"},
	"mesh/internal/lookout":         {"lb/hostcheck", "lb/hostread", "mesh/control", "mesh/internal/notice"},
	"mesh/internal/metrics": {
		"state", "gossip", "resolver", "lb", "lb/hostcheck", "lb/hostwatch", "lb/rulewatch", "mesh/internal/lookout",
	},

	"mesh": {
		"state", "gossip", "resolver",
		"lb", "lb/hostfacts", "lb/hostwatch", "lb/rulewatch", "lb/hostcheck", "lb/hostread", "lb/hostmend",
		"lb/holder", "lb/ipvs", "lb/nft", "lb/sysctl",
		"mesh/internal/balancing", "mesh/internal/box", "mesh/internal/compare", "mesh/config", "mesh/control",
		"mesh/internal/hostchanges", "mesh/internal/keys", "mesh/internal/lookout",
		"mesh/internal/metrics", "mesh/internal/names", "mesh/internal/notice", "mesh/internal/observe",
		"mesh/internal/peers", "mesh/internal/registry",
		"mesh/sandbox", "mesh/internal/seeds", "mesh/internal/store", "mesh/internal/watch", "mesh/source", "mesh/source/docker",
	},
	"cmd/meshd":   {"mesh", "mesh/config", "mesh/logqueue", "mesh/sandbox"},
	"cmd/meshctl": {"mesh/control", "state"},

	"mesh/internal/names": {"resolver", "state", "mesh/control"},
	"mesh/internal/balancing": {
		"state", "mesh/control", "lb", "lb/hostfacts", "lb/hostwatch", "lb/rulewatch", "lb/hostmend", "lb/holder",
		"lb/ipvs", "lb/nft", "lb/nftconn", "lb/sysctl", "mesh/internal/hostchanges",
	},
	"mesh/internal/box":                   {"mesh/control", "mesh/internal/notice", "mesh/sandbox", "lb/hostcheck", "lb/hostread", "state"},
	"mesh/internal/box/boxtest":           {"mesh/internal/box", "mesh/control", "mesh/sandbox"},
	"mesh/internal/registry/registrytest": {"mesh/internal/registry", "mesh/internal/store", "mesh/control", "state"},

	"gossip/transport":  {}, // between memberlist and the network: knows nothing of the protocol
	"gossip/gossiptest": {}, // knows the wire from its description, not from gossip

	"examples/demo":  {"test/rig", "test/fleet", "test/hostkind", "mesh/control"},
	"test":           {},
	"test/rig":       {},
	"test/fleet":     {"test/rig", "mesh/control"},
	"test/documents": {"test/rig", "test/fleet", "mesh/control"},
	"test/hostkind":  {"test/rig"},

	"test/hostkind/save": {"test/rig", "test/hostkind"},

	"test/netns":       {"test/rig", "test/fleet", "test/hostkind", "mesh/control"},
	"test/dataplane":   {},
	"test/engine":      {},
	"test/engine/task": {},
	"test/dnsclients":  {"test/rig", "test/fleet", "mesh/control"},
	"test/vm":          {},
	"test/vm/guest":    {"test/vm"},
	"test/vm/cmd/vm":   {"test/vm", "test/vm/guest"},
	"test/sim":         {"state", "gossip", "gossip/gossiptest"},

	"test/bench":       {"state", "gossip", "test/sim"},
	"test/bench/table": {"state"},
	"test/bench/real":  {"test/rig", "test/fleet", "mesh/control"},
	"test/bench/drift": {"test/rig", "test/fleet", "mesh/control"},
	"test/bench/dns":   {"test/rig", "state", "resolver"},
	"test/bench/lb":    {"lb", "lb/ipvs", "lb/nft", "lb/rulewatch", "state", "test/rig"},
	"test/chaos":       {"test/rig", "test/fleet", "mesh/control"},
	"test/hostile":     {"state", "gossip/gossiptest", "test/rig", "test/fleet", "mesh/control"},
	"test/peers":       {}, // a module of its own
}

// testMayImport adds what a package's _test.go files may import on top.
var testMayImport = map[string][]string{
	"test/hostile":          {"gossip"}, // a node that keeps to the protocol, and states what it likes
	"lb":                    {"lb/lbtest"},
	"lb/ipvs":               {"lb/lbtest", "test/rig"},
	"lb/hostwatch":          {"test/rig"},
	"lb/rulewatch":          {"test/rig"},
	"lb/holder":             {"test/rig"},
	"lb/hostread":           {"test/rig"},
	"lb/hostmend":           {"test/rig"},
	"lb/nft":                {"lb/lbtest", "lb/internal/linktest", "lb/internal/namespace", "test/rig"},
	"lb/internal/pool":      {"lb/internal/linktest"},
	"lb/internal/conntrack": {"lb/internal/linktest"},
	"lb/sysctl":             {"test/rig"},
	"mesh":                  {"lb/lbtest", "test/rig"},
	"cmd/meshd":             {"lb"},
	"test/dataplane":        {"state", "lb", "lb/lbtest", "lb/nft", "lb/ipvs", "lb/hostcheck", "lb/hostread", "lb/hostmend", "test/rig", "test/hostkind"},
	"test/vm":               {"test/vm/guest"},
	"test/engine": {
		"test/rig", "test/fleet", "state", "mesh/control", "mesh/source", "mesh/source/docker", "mesh/source/sourcetest",
	},

	"gossip":            {"gossip/gossiptest"},
	"gossip/gossiptest": {"state"},
	"gossip/transport":  {"gossip/gossiptest", "state"},

	"mesh/internal/balancing":   {"lb/lbtest"},
	"mesh/internal/box":         {"mesh/internal/box/boxtest"},
	"mesh/internal/registry":    {"mesh/internal/registry/registrytest"},
	"mesh/sandbox":              {"test/rig"},
	"mesh/source/docker":        {"mesh/source/docker/dockertest", "mesh/source/sourcetest"},
	"mesh/internal/keys":        {"mesh/internal/store/storetest"},
	"mesh/internal/checker":     {"mesh/source/sourcetest"},
	"mesh/internal/hostchanges": {"mesh/internal/store/storetest"},
}

// banned lists imports that no package may use, and what to do instead.
var banned = map[string]string{
	"math/rand":               "use math/rand/v2, seeded by the caller",
	"log":                     "use the *slog.Logger you were given",
	"io/ioutil":               "use io and os",
	"github.com/pkg/errors":   "use errors and fmt",
	"golang.org/x/exp/slices": "use slices",
}

// pure lists what single packages must stay clear of.
var pure = map[string]map[string]string{
	"state": {
		"os": "state does no I/O", "net": "state does no I/O; net/netip is fine",
		"io/fs": "state does no I/O", "net/http": "state does no I/O",
		"log/slog": "state does not log; its callers do",
		"context":  "state does not wait",
	},
}

const module = "meshd/"

// source is one parsed Go file of this repository.
type source struct {
	path  string // relative to the root, with slashes
	pkg   string // its directory: "state", "lb/nft"
	test  bool
	lines int
	file  *ast.File
	set   *token.FileSet
}

func TestImportArrows(t *testing.T) {
	for _, s := range sources(t) {
		allowed, known := mayImport[s.pkg]
		if !known {
			t.Errorf("%s: package %s has no place: add it to mayImport in test/arch_test.go", s.path, s.pkg)
			continue
		}
		if s.test {
			allowed = append(slices.Clone(allowed), testMayImport[s.pkg]...)
			allowed = append(allowed, s.pkg)
		}
		for _, imp := range imports(s.file) {
			own, ours := strings.CutPrefix(imp, module)
			if ours && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s; %s may import only %v", s.path, own, s.pkg, allowed)
			}
		}
	}
}

func TestBannedImports(t *testing.T) {
	for _, s := range sources(t) {
		for _, imp := range imports(s.file) {
			if why := banned[imp]; why != "" {
				t.Errorf("%s imports %s: %s", s.path, imp, why)
			}
			if why := pure[s.pkg][imp]; why != "" && !s.test {
				t.Errorf("%s imports %s: %s", s.path, imp, why)
			}
		}
	}
}

// TestStateHasNoClock allows state to use time for durations only.
func TestStateHasNoClock(t *testing.T) {
	fine := []string{"Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}
	for _, s := range sources(t) {
		if s.pkg != "state" || s.test {
			continue
		}
		for _, name := range selectors(s.file, "time") {
			if !slices.Contains(fine, name) {
				t.Errorf("%s uses time.%s: state has no clock (S8)", s.path, name)
			}
		}
	}
}

// TestNoSleepInTests allows sleeping in files of synctest bubbles only, where
// it takes no time.
func TestNoSleepInTests(t *testing.T) {
	for _, s := range sources(t) {
		bubble := slices.Contains(imports(s.file), "testing/synctest")
		if s.test && !bubble && slices.Contains(selectors(s.file, "time"), "Sleep") {
			t.Errorf("%s calls time.Sleep: poll a condition with a deadline, or use a synctest bubble", s.path)
		}
	}
}

func TestPackageDocs(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			documented[s.pkg] = documented[s.pkg] || s.file.Doc != nil
		}
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("no package comment in %s", pkg)
		}
	}
}

// sources are the Go files of the repository, parsed. They are for reading.
func sources(t *testing.T) []source {
	t.Helper()
	all, err := parseAll()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// parseAll parses once what all tests of this package look at.
var parseAll = sync.OnceValues(func() (all []source, err error) {
	root, err := filepath.Abs("..")
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		s, err := parse(root, path)
		all = append(all, s)
		return err
	})
	return all, err
})

func parse(root, path string) (source, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return source{}, err
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, err
	}
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return source{}, err
	}
	rel = filepath.ToSlash(rel)
	return source{
		path: rel, pkg: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(rel, "_test.go"),
		lines: strings.Count(string(text), "\n"), file: f, set: set,
	}, nil
}

func imports(f *ast.File) []string {
	var paths []string
	for _, imp := range f.Imports {
		if p, err := strconv.Unquote(imp.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// selectors lists the names that f takes from the package called pkg.
func selectors(f *ast.File, pkg string) []string {
	var names []string
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == pkg {
				names = append(names, sel.Sel.Name)
			}
		}
		return true
	})
	return names
}
