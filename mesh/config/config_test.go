package config_test

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshd/mesh/config"
)

const aKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// written makes a file of a test, mode 0600.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// refusal returns what Check says about a configuration that it must refuse.
func refusal(t *testing.T, cfg config.Config) string {
	t.Helper()
	_, err := cfg.Check()
	if err == nil {
		t.Errorf("%+v was taken", cfg)
		return ""
	}
	if !errors.Is(err, config.ErrInvalid) {
		t.Errorf("%+v: %v is no ErrInvalid", cfg, err)
	}
	return err.Error()
}

// What a file says is what the flags of the same names say.
func TestConfigFile(t *testing.T) {
	path := written(t, `# a comment
node: host1
bind: 10.0.0.1
join: 10.0.0.1, seed.example:7000
dns: 10.1.1.1:53
dns-clients:
  - 10.0.0.0/8
  - fd00::/8
upstream: [10.0.0.53, corp.example=10.0.0.54]
networks: ingress
ttl: 30s
preserve: 0.7
max-tasks: 1000
table-memory: 512MiB
insecure: yes
allow-loopback-tasks: true
`)
	got, err := config.Read(path)
	want := config.Config{
		Node: "host1", Bind: "10.0.0.1", Join: []string{"10.0.0.1", "seed.example:7000"}, DNS: []string{"10.1.1.1:53"},
		DNSClients: []string{"10.0.0.0/8", "fd00::/8"}, Upstream: []string{"10.0.0.53", "corp.example=10.0.0.54"},
		Networks: []string{"ingress"}, TTL: config.Duration(30 * time.Second), Preserve: 0.7, MaxTasks: 1000,
		TableMemory: 512 << 20, Insecure: true, AllowLoopbackTasks: true,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	for _, empty := range []string{"", "\n", "# nothing\n", "---\n"} {
		if c, err := config.Read(written(t, empty)); err != nil || !reflect.DeepEqual(c, config.Config{}) {
			t.Errorf("%q: %+v, %v", empty, c, err)
		}
	}
}

// A flag of the command line replaces the list of the file.
func TestFlagsWin(t *testing.T) {
	c, err := config.Read(written(t, "join: 10.0.0.1\ndns: [10.1.1.1, 10.1.1.2]\nttl: 9s\n"))
	if err != nil {
		t.Fatal(err)
	}
	flags := flag.NewFlagSet("meshd", flag.ContinueOnError)
	c.RegisterFlags(flags)
	if err := flags.Parse([]string{
		"--join", "10.0.0.2,10.0.0.3", "--join", "10.0.0.4", "--dns", "",
		"--ttl=8s",
	}); err != nil {
		t.Fatal(err)
	}
	want := config.Config{Join: []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"}, TTL: config.Duration(8 * time.Second)}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
}

// Every error of a file names its line in plain words.
func TestConfigFileRefusals(t *testing.T) {
	for text, says := range map[string]string{
		"node: a\nnodee: b\n":             `line 2: "nodee" is not known; did you mean node?`,
		"key_file: /x\n":                  "did you mean key-file?",
		"frobnicate: 1\n":                 "meshd --help",
		"<<: {node: x}\n":                 "meshd --help",
		"? [a]\n: b\n":                    "meshd --help",
		"node: a\n\nbind: x\nnode: b\n":   "line 4: node is there twice, in line 1 too",
		"key-file:\n":                     "line 1: key-file: it has no value",
		"key-file: \"\"\n":                "line 1: key-file: it has no value",
		"key-file: ~\n":                   "line 1: key-file: it has no value",
		"join:\n":                         "line 1: join: it has no value",
		"join: [10.0.0.1, ]\ndns: [~]\n":  "line 2: dns: every item",
		"node: a\n---\nnode: b\n":         "a second document",
		"node: a\nbind:\n\t10.0.0.1\n":    "line 3: a tab",
		"node: [a, b]\n":                  "it takes one value, not a list",
		"node: {a: b}\n":                  "it has entries of its own",
		"dns:\n  addr: 10.0.0.1\n":        "it has entries of its own",
		"- node\n":                        "line 1: write entries like",
		"node\n":                          "line 1: write entries like",
		"ttl: soon\n":                     `line 1: ttl: "soon": it is not a duration`,
		"ttl: 5\n":                        "write 5s",
		"ttl: 0s\n":                       "use 1s to 1h",
		"ttl: -5s\n":                      "use 1s to 1h",
		"reservation: 1ns\n":              "use 1m to 8760h",
		"d1: 1s\n":                        "use 1m to 72h",
		"pools: []\n":                     "line 1: pools: it has no value",
		"dns-clients: []\n":               "line 1: dns-clients: it has no value",
		"lb-verify: 0\n":                  "use 1s to 1h",
		"preserve: .nan\n":                "use a share",
		"preserve: 0\n":                   "use a share",
		"max-tasks: 99999999999999999999": "use a number from 1 to",
		"max-tasks: 4611686018427387905":  "use a number from 1 to",
		"table-memory: 1MiB\n":            "use a size from 64MiB to 1024GiB, such as 512MiB",
		"table-memory: 9999999999GiB\n":   "use a size from",
		"table-memory: -1GiB\n":           "use a size from",
		"table-memory: 1 GB\n":            "use a size from",
		"query-log: -1\n":                 "use a number from 0",
		"push-rate: 1\n":                  "use a number from 16384",
		"insecure: perhaps\n":             "write true or false",
		"node: \"a\n":                     "line",
		"a: &a [*a]\n":                    "line",
		"\x00":                            "control characters",
		strings.Repeat("#\n", 1<<20):      "has more than",
	} {
		_, err := config.Read(written(t, text))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %v, want %q", text, err, says)
			continue
		}
		for _, word := range []string{"yaml:", "unmarshal", "mesh.", "[]string", "strconv", "!!"} {
			if strings.Contains(err.Error(), word) {
				t.Errorf("%.40q: %v has %q in it, which is no word for people", text, err, word)
			}
		}
	}
}

// Only a plain file of a sensible size is read: a pipe would be waited for, and a
// device has no end.
func TestConfigIsAPlainFile(t *testing.T) {
	dir := t.TempDir()
	pipe, link, huge := filepath.Join(dir, "pipe"), filepath.Join(dir, "link"), filepath.Join(dir, "huge")
	err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.Symlink(pipe, link), os.WriteFile(huge, nil, 0o600),
		os.Truncate(huge, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		dir: "is a directory", pipe: "not a plain file", link: "not a plain file", "/dev/zero": "not a plain file",
		huge: "has more than 1048576 bytes", filepath.Join(dir, "none"): "no such file",
	} {
		if _, err := config.Read(path); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", path, err, says)
		}
	}
}

// Values that cannot work are refused, each with its field and what to write.
func TestConfigRefusals(t *testing.T) {
	for _, c := range []struct {
		says string
		cfg  config.Config
	}{
		{"bind: other hosts cannot dial 224.0.0.1", config.Config{Bind: "224.0.0.1"}},
		{"bind: other hosts cannot dial fe80::1%eth0", config.Config{Bind: "fe80::1%eth0"}},
		{"bind: port 0", config.Config{Bind: "10.0.0.1:0"}},
		{"bind: \"[]\" is not IP:PORT", config.Config{Bind: "[]"}},
		{"advertise: \"10.0.0.1:7946\" is not an IP address", config.Config{Advertise: "10.0.0.1:7946"}},
		{"advertise: other hosts cannot dial 0.0.0.0", config.Config{Advertise: "0.0.0.0"}},
		{"advertise: other hosts cannot dial ff02::1", config.Config{Advertise: "ff02::1"}},
		{"advertise: 127.0.0.1 is every host itself", config.Config{Advertise: "127.0.0.1"}},
		{"advertise: 10.0.0.1 is not of the family", config.Config{Bind: "fd00::1", Advertise: "10.0.0.1"}},
		{"dns: 10.1.1.1:53 is there twice", config.Config{DNS: []string{"10.1.1.1", "10.1.1.1:53"}}},
		{"dns: 0.0.0.0:53 is on all addresses", config.Config{DNS: []string{"10.1.1.1", "0.0.0.0"}}},
		{"dns: [::]:53 is on all addresses", config.Config{DNS: []string{"::", "10.1.1.1"}}},
		{"dns: 224.0.0.251 is no address of one host", config.Config{DNS: []string{"224.0.0.251"}}},
		{"dns-clients: \"lan\" is not a subnet", config.Config{DNSClients: []string{"lan"}}},
		{"write 10.0.0.0/8", config.Config{DNSClients: []string{"10.1.2.3/8"}}},
		{"join: \"10.0.0.1:99999\" has no port", config.Config{Join: []string{"10.0.0.1:99999"}}},
		{"join: 10.0.0.1:0 has no port", config.Config{Join: []string{"10.0.0.1:0"}}},
		{"join: \"seed:\" has no port", config.Config{Join: []string{"seed:"}}},
		{"join: \"10.0.0\" is neither", config.Config{Join: []string{"10.0.0"}}},
		{"join: \"http://seed/\"", config.Config{Join: []string{"http://seed/"}}},
		{"join: \"a b\" is neither", config.Config{Join: []string{"a b"}}},
		{"join: 0.0.0.0:7946 is no address of one host", config.Config{Join: []string{"0.0.0.0"}}},
		{"ttl: 1.5s; use whole seconds", config.Config{TTL: config.Duration(1500 * time.Millisecond)}},
		{"upstream: 0.0.0.0:53 is no server's", config.Config{Upstream: []string{"0.0.0.0"}}},
		{"upstream: 224.0.0.1:53 is no server's", config.Config{Upstream: []string{"corp.example=224.0.0.1"}}},
		{"upstream: 10.0.0.1:0 is no server's", config.Config{Upstream: []string{"10.0.0.1:0"}}},
		{"upstream: names of mesh.internal are answered by the mesh", config.Config{Upstream: []string{"mesh.internal=10.0.0.1"}}},
		{"upstream: names of corp are answered by the mesh", config.Config{Domain: "Corp.", Upstream: []string{"10.0.0.53", "a.corp=10.0.0.1"}}},
		{"join: 255.255.255.255:7946 is no address of one host", config.Config{Join: []string{"255.255.255.255"}}},
		{"upstream: \"a..b\" is not a domain name", config.Config{Upstream: []string{"a..b=10.0.0.1"}}},
		{"domain: \"-\"", config.Config{Domain: "-"}},
		{"domain: \".\"", config.Config{Domain: "."}},
		{"domain: \"a..b\"", config.Config{Domain: "a..b"}},
		{"has 51 characters, at most 50", config.Config{Domain: strings.Repeat("a", 49) + ".b."}},
		{"networks: a is there twice", config.Config{Networks: []string{"a", "a"}}},
		{"socket-group: this host has no group", config.Config{SocketGroup: "nobody-has-this"}},
		{"socket-group: this host has no group", config.Config{SocketGroup: "-1"}},
		{"log-level: \"loud\"; use one of: debug info warn error", config.Config{LogLevel: "loud"}},
	} {
		c.cfg.Insecure = true
		if c.cfg.Node == "" {
			c.cfg.Node = "a"
		}
		if got := refusal(t, c.cfg); !strings.Contains(got, c.says) {
			t.Errorf("got %q, want %q", got, c.says)
		}
	}
}

// Without a key nobody outside of the host may reach the gossip, unless a person said so.
func TestOpenGossip(t *testing.T) {
	for _, bind := range []string{"", "0.0.0.0", "[::]:7946", "192.0.2.7"} {
		got := refusal(t, config.Config{Node: "a", Bind: bind})
		for _, way := range []string{"--key-file", "key-file:", "--insecure", "insecure: true", "meshctl keygen --out"} {
			if !strings.Contains(got, way) {
				t.Errorf("bind %q: %q does not tell of %s", bind, got, way)
			}
		}
	}
	if got := refusal(t, config.Config{Node: "a", KeyFile: written(t, aKey), Insecure: true}); !strings.Contains(got,
		"remove one of the two") {
		t.Errorf("a key and --insecure: %s", got)
	}
}

// The key file must be the secret of root or of the user that meshd runs as.
func TestKeyFileRefusals(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	world := file("world", aKey, 0o644)
	link := filepath.Join(dir, "link")
	pipe := filepath.Join(dir, "pipe")
	if err := errors.Join(os.Symlink(world, link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	shared := filepath.Join(dir, "shared")
	if err := errors.Join(os.Mkdir(shared, 0o700), os.Chmod(shared, 0o777)); err != nil {
		t.Fatal(err)
	}
	inShared := file("shared/key", aKey, 0o600)
	cases := map[string]string{
		world:                              "chmod 600 " + world,
		file("group", aKey, 0o640):         "mode 0640",
		file("written", aKey, 0o602):       "chmod 600",
		link:                               "chmod 600 " + world,
		pipe:                               "is not a regular file",
		dir:                                "is not a regular file",
		"/dev/zero":                        "is not a regular file",
		inShared:                           "chmod o-w " + shared,
		file("empty", "", 0o600):           "holds no key",
		file("blank", "\n# x\n", 0o600):    "holds no key",
		file("short", "c2hvcnQ=\n", 0o600): "line 1 is not",
		file("huge", strings.Repeat("#\n", 1<<16), 0o600):        "more than 65536 bytes",
		file("many", strings.Repeat(aKey+"\n", 9), 0o600):        "more than 8 keys",
		filepath.Join(dir, "none"):                               "meshctl keygen --out",
		file("binary", "\x00\xff"+strings.Repeat("a", 9), 0o600): "line 1 is not",
	}
	if os.Geteuid() == 0 {
		theirs := file("theirs", aKey, 0o600)
		if err := os.Chown(theirs, 65534, 65534); err == nil {
			cases[theirs] = "belongs to user 65534"
		}
	}
	for path, says := range cases {
		if got := refusal(t, config.Config{Node: "a", KeyFile: path}); !strings.Contains(got, says) {
			t.Errorf("%s: %q, want %q", path, got, says)
		} else if strings.Contains(got, aKey) {
			t.Errorf("%s: the key is in the message", path)
		}
	}
}

// Every configuration that we show is one that we take.
func TestExamples(t *testing.T) {
	found := 0
	err := filepath.WalkDir("../../examples", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" && filepath.Ext(path) != ".yml" {
			return err
		}
		if d.Name() == "compose.yaml" { // Docker's; TestComposeExample of its source takes it
			return nil
		}
		found++
		c, err := config.Read(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return nil
		}
		if c.KeyFile == "" {
			t.Errorf("%s shows no key-file", path)
		}
		c.KeyFile, c.LogLevel = written(t, aKey), "nothing else is wrong"
		if got := refusal(t, c); !strings.HasPrefix(got, "log-level:") {
			t.Errorf("%s: %s", path, got)
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d examples, %v", found, err)
	}
}

// Flags are refused as people write them, and tell nothing of Go.
func TestFlagErrors(t *testing.T) {
	for line, says := range map[string]string{
		"--ttl soon":        `--ttl: "soon": it is not a duration; write 5s, 10m or 24h`,
		"--ttl 0":           `--ttl: "0": use 1s to 1h`,
		"--ttl":             "--ttl: a value must follow",
		"--key-file=":       "--key-file: it has no value",
		"--key-fil x":       "--key-fil is not known; did you mean --key-file?",
		"--xyz":             `--xyz is not known; "meshd --help" lists what there is`,
		"--insecure=maybe":  `--insecure: "maybe": write true or false`,
		"--max-tasks 1e3":   `--max-tasks: "1e3": use a number from 1 to`,
		"--preserve two":    `--preserve: "two": use a share`,
		"---ttl 5s":         "meshd --help",
		"--d1 1s":           "use 1m to 72h",
		"--reservation 1ns": "use 1m to 8760h",
	} {
		var c config.Config
		flags := flag.NewFlagSet("meshd", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		c.RegisterFlags(flags)
		err := flags.Parse(strings.Fields(line))
		if err == nil || !strings.Contains(config.FlagError(flags, err).Error(), says) {
			t.Errorf("%s: %v, want %q", line, config.FlagError(flags, err), says)
		}
	}
}

// The help shows each default once, and none that is not true.
func TestFlagDefaults(t *testing.T) {
	var c config.Config
	var out strings.Builder
	flags := flag.NewFlagSet("meshd", flag.ContinueOnError)
	flags.SetOutput(&out)
	c.RegisterFlags(flags)
	flags.PrintDefaults()
	for line := range strings.Lines(out.String()) {
		if strings.Count(line, "(default") > 1 || strings.Contains(line, "(default 0") &&
			!strings.Contains(line, "(default 0.") {
			t.Error(line)
		}
	}
}
