package documents

import (
	"encoding/json"
	"strings"
	"testing"
)

// Why some commands are not run.
const (
	tier   = "a tier of the tests of its own, or many of them"
	vm     = "needs the emulated machine, or IPVS, which is tested there"
	kernel = "a module, which is the machine's own, not the host's"
	rest   = "the rest is what the doctor says, which its own tests type"
	noone  = "no command, though it begins with a program's name"
)

// interrupted runs what has no end, and must end well when it is interrupted.
const interrupted = "timeout --preserve-status -s INT 3 %s"

// again starts a service anew that is about to end.
const again = "while systemctl is-active meshd 2>/dev/null; do :; done; systemctl start meshd && meshctl status --wait"

// TestReadme runs what the README names in its text, and what is not in the two
// sections that TestReadmeByHand and TestThreeMachines paste.
func TestReadme(t *testing.T) {
	m := newMachines(t)
	m.setUp(t, typists()["script"])
	var commands []command
	pasted := 0
	for _, c := range commandsOf("README.md", read(t, "README.md"), names(verbs(t, m[0]))) {
		if c.block && !strings.HasPrefix(c.text, "make demo") {
			pasted++
			continue
		}
		commands = append(commands, c)
	}
	if pasted != 9+4 {
		t.Errorf("the README has %d blocks, of which the two sections have %d: paste the others, too", pasted, 9+4)
	}
	m.run(t, commands, map[string]how{
		"make demo      # three hosts on this machine, the whole story, in half a minute": {left: tier},
		"make demo": {left: tier}, "make demo KEEP=1": {left: tier}, "make bubble": {left: tier}, "make netns": {left: tier}, ".ci/run": {left: tier},
		"make vm": {left: vm}, "make demo-vm": {left: vm}, "go test -exec": {left: vm}, `go test -exec "$PWD/bin/vm run" ./lb/ipvs`: {left: vm},
		"kill -9": {left: noone},
		"meshctl sandbox attach --pid … --network … --service … --resolv-conf auto": {
			before: container("shop", "10.1.1.8") + process("shop"),
			fill: map[string]string{
				"--pid …": "$ echo --pid $(cat /root/pid)", "--network …": "--network collabnet",
				"--service …": "--service shop",
			},
			after: "meshctl sandbox ls | grep shop",
		},
	}, working(t))
}

// TestOperations runs docs/OPERATIONS.md.
func TestOperations(t *testing.T) {
	m := newMachines(t)
	m.setUp(t, typists()["script"])
	m[1].must(backend("api", "10.1.2.7"))
	m.run(t, commandsOf("docs/OPERATIONS.md", read(t, "docs/OPERATIONS.md"), names(verbs(t, m[0]))), map[string]how{
		"meshctl watch --network N":          {as: interrupted},
		"meshctl watch":                      {as: interrupted},
		"meshctl sandbox detach NAME":        {after: "meshctl sandbox attach --netns web --network collabnet --name web-1 --service web --port 80 --resolv-conf auto --wait"},
		"meshctl task drain ID":              {before: "meshctl task add --network collabnet --service web --id extra --ip 10.1.1.9 --port 80 --wait"},
		"meshctl task add … --port 80:31874": {fill: map[string]string{"…": "--network collabnet --service web --id mapped --ip 10.1.1.10"}},
		"systemctl stop meshd":               {after: again},
		"meshctl leave":                      {after: again},
		"ip meshd_dns":                       {left: noone},
		"ip meshd":                           {left: noone},
		"ip vrf exec":                        {left: noone},
		"curl --interface eth0":              {left: "of an address that the text does not give"},
		"ip rule flush":                      {after: "ip rule add pref 32766 table main; ip rule add pref 32767 table default; meshctl node ls --alive 3 --wait; meshctl status --wait"},
		"make dataplane-kinds":               {left: tier},
		"make dns-clients":                   {left: tier},
		"make demo":                          {left: tier},
		"make netns":                         {left: tier},
		"make vm":                            {left: vm},
		"make bench-lb":                      {left: vm},
		"make bench-detect":                  {left: tier},
		"nft flush ruleset":                  {after: "meshctl lb verify || meshctl lb verify"},
		"ipvsadm -C":                         {left: vm},
		"nft list chain ip meshd keep_mark":  {left: vm},
		"ipvsadm -D …":                       {left: vm},
		"ipvsadm -Ln":                        {left: vm},
		"ipvsadm -l --timeout":               {left: vm},
		"ipvsadm --set TCP FIN UDP":          {left: vm},
		"sysctl -w …":                        {left: rest},
		"modprobe …":                         {left: rest},
		"modprobe ip_vs":                     {left: kernel},
		"ufw route allow in on BRIDGE":       {left: "needs ufw in service, with a machine's own kernel log and boot"},
		"iptables -V":                        {needs: "iptables"},
		"conntrack -F":                       {needs: "conntrack"},
		"meshctl keygen --out /root/new.key": {fill: oldKey, last: true, after: newKeyEverywhere},
		"systemctl disable --now meshd     # stopping leaves the mesh, as meshctl leave does": {last: true, on: 2, shows: "removed", after: "nft list ruleset | { ! grep meshd; }; ip rule | { ! grep 109; }"},
	}, "/root")
}

var oldKey = map[string]string{"OLD": "$ meshctl key ls | tail -1 | cut -d' ' -f1"}

// newKeyEverywhere does what the text behind the block tells to do.
const newKeyEverywhere = `
scp -p /root/new.key root@192.0.2.12:/etc/meshd/key
scp -p /root/new.key root@192.0.2.13:/etc/meshd/key
cp /root/new.key /etc/meshd/key
systemctl restart meshd && meshctl status --wait
meshctl node ls --alive 3 --wait`

// TestAPI sends the requests of docs/API.md. What meshd refuses is no failure of
// curl, so that the reply is looked at.
func TestAPI(t *testing.T) {
	m := newMachines(t)
	m.setUp(t, typists()["script"])
	m[0].must(container("web", "10.1.1.7") + `
meshctl sandbox attach --netns web --network collabnet --name web-1 --service web --port 80 --wait`)
	const socket = "curl --unix-socket /run/meshd/meshd.sock "
	const taskAgain = "meshctl task add --network collabnet --service web --id 3f9c --ip 10.1.1.9 --port 81"
	table := map[string]how{
		"curl -N --unix-socket /run/meshd/meshd.sock 'http://meshd/v1/watch?network=collabnet'":                                            {as: "timeout 2 %s", exit: 124, shows: `"type":"start"`},
		socket + "-X POST http://meshd/v1/leave":                                                                                           {after: again},
		socket + "-X DELETE http://meshd/v1/networks/collabnet":                                                                            {before: "meshctl network create unused --subnet 10.97.0.0/16", fill: map[string]string{"networks/collabnet": "networks/unused"}},
		socket + "-X DELETE 'http://meshd/v1/tasks/3f9c?network=collabnet'":                                                                {before: taskAgain, after: taskAgain},
		socket + `-d '{"networks": ["collabnet"], "netns": "web", "task": {"service": "web", "ports": ["80"]}}' http://meshd/v1/sandboxes`: {before: "meshctl sandbox detach web-1", after: "meshctl sandbox detach $(meshctl sandbox ls -o json | jq -r .[0].name); meshctl sandbox attach --netns web --network collabnet --name web-1 --service web"},
		socket + `-d '{"key": "1f2e3d4c5b6a"}' http://meshd/v1/keys/use`:                                                                   {fill: map[string]string{"1f2e3d4c5b6a": "$ meshctl key ls | tail -1 | cut -d' ' -f1"}},
		socket + `-d '{"key": "1f2e3d4c5b6a"}' http://meshd/v1/keys/remove`:                                                                {fill: map[string]string{"1f2e3d4c5b6a": "$ meshctl key ls | tail -1 | cut -d' ' -f1"}},
	}
	m[0].must(`printf 'fail\nsilent\nshow-error\n' > /root/.curlrc`) // what is refused is a failure, then
	text := read(t, "docs/API.md")
	requests := commandsOf("docs/API.md", text, names(verbs(t, m[0])))
	for _, c := range requests {
		key := strings.TrimSpace(c.text)
		if h := table[key]; h.shows == "" && shownKeys(text, c) != nil {
			h.keys = shownKeys(text, c)
			table[key] = h
		}
	}
	m.run(t, requests, table, "/root")
}

// shownKeys are the keys of the JSON object that a document shows behind a request,
// but for those that it calls optional.
func shownKeys(document string, c command) (keys []string) {
	_, behind, _ := strings.Cut(document, "    "+c.text+"\n")
	if !strings.HasPrefix(behind, "    {") {
		return nil
	}
	shown, _, _ := strings.Cut(behind, "\n\n")
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(shown), &object) != nil {
		return nil
	}
	for key := range object {
		if key != "commit" {
			keys = append(keys, key)
		}
	}
	return keys
}

// TestHelp runs the examples of the helps.
func TestHelp(t *testing.T) {
	m := newMachines(t)
	m.setUp(t, typists()["script"])
	var examples []command
	for _, v := range verbs(t, m[0]) {
		_, example, ok := strings.Cut(m[0].must("meshctl "+v.name+" --help"), "\nExample:\n")
		if !ok {
			t.Errorf("the help of meshctl %s has no example", v.name)
		}
		example, _, _ = strings.Cut(example, "\n\n")
		for line := range strings.Lines(example) {
			examples = append(examples, command{"meshctl " + v.name + " --help", strings.TrimSpace(line), false})
		}
	}
	usage, _, _ := strings.Cut(m[0].must("meshd --help"), "\n\nFlags win")
	for line := range strings.SplitSeq(strings.ReplaceAll(usage, "\n       ", ""), "\n  ") {
		if line, _, _ = strings.Cut(line, "      "); strings.HasPrefix(line, "meshd -") ||
			strings.HasPrefix(line, "meshd d") {
			examples = append(examples, command{"meshd --help", line, false})
		}
	}
	const daemon = "systemctl stop meshd; mkdir /run/meshd; %s 2>log & meshctl status --wait; " +
		"kill $!; wait $!; tail -1 log"
	worker := "meshctl network create backend --subnet 10.97.0.0/16" + process("worker")
	attach := "meshctl sandbox attach --pid $(cat /root/pid) --network collabnet,backend --name worker --resolv-conf auto"
	const extra = "meshctl task add --network collabnet --service db --id 3f9c2a --ip 10.1.0.9 --port 3306"
	m[0].must(container("web", "10.1.1.7") + container("worker", "10.1.1.8"))
	m.run(t, examples, map[string]how{
		"meshctl leave":       {after: again},
		"meshd --config FILE": {as: daemon, fill: map[string]string{"FILE": "/etc/meshd/meshd.yaml"}},
		"meshd --node NAME --bind IP[:PORT] --join IP[:PORT][,…] --data-dir DIR --socket PATH --dns IP[:PORT] --lb " +
			"auto|ipvs|nft|none --key-file FILE [--domain D]": {
			as: daemon, after: again, fill: map[string]string{
				"NAME": "host1", "--bind IP[:PORT]": "--bind 192.0.2.11:7946",
				"--join IP[:PORT][,…]": "--join 192.0.2.12,192.0.2.13:7946",
				"DIR":                  "/var/lib/meshd", "PATH": "/run/meshd/meshd.sock", "--dns IP[:PORT]": "--dns 10.1.1.1",
				"auto|ipvs|nft|none": "auto",
				"FILE":               "/etc/meshd/key", "[--domain D]": "--domain mesh.internal",
			},
		},
		"meshd doctor": {as: "%s --config /etc/meshd/meshd.yaml"},
		"meshctl task rm 3f9c2a --network collabnet": {before: extra},
		"meshctl task drain 3f9c2a":                  {before: extra, after: "meshctl task rm 3f9c2a"},
		"meshctl sandbox attach --pid 4711 --network collabnet,backend --name worker --resolv-conf auto": {
			before: worker,
			fill:   map[string]string{"4711": "$ cat /root/pid"},
		},
		"meshctl sandbox detach worker":             {after: attach},
		"meshctl watch --network collabnet":         {as: interrupted},
		"meshctl watch -o json --from 4711":         {as: interrupted, shows: `"type":"(start|reset)"`},
		"meshctl diff --wait 10s && echo converged": {shows: "converged"},
		"meshctl key use - < new.key":               {before: "meshctl key ls | sed -n 2p | cut -d' ' -f1 > old"},
		"meshctl key remove 1f2e3d4c5b6a":           {fill: map[string]string{"1f2e3d4c5b6a": "$ cat old"}},
		"meshctl keygen --out /etc/meshd/key":       {before: "mv /etc/meshd/key old.key", after: "cp old.key /etc/meshd/key"},
		`meshctl completion zsh > "${fpath[1]}/_meshctl"`: {
			as:    "fpath=(zsh /tmp); %s",
			after: "grep -q compdef /tmp/_meshctl",
		},
		"source <(meshctl completion bash)":                                 {as: "%s; complete -p meshctl", shows: "meshctl"},
		"meshctl completion fish > ~/.config/fish/completions/meshctl.fish": {before: "mkdir -p ~/.config/fish/completions"},
	}, "/root")
}
