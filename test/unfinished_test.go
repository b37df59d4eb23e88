package test

// unfinished lists what does not keep the rules of this file yet, by rule, and
// by file, type or package. An entry that is no longer needed fails the test.
var unfinished = map[string][]string{
	"columns": {
		"mesh",
		"mesh/control",
	},
	"fields": {
		"cmd/meshctl",
		"examples/demo",
		"lb/ipvs",
		"lb/nft",
		"mesh",
		"mesh/control",
		"test/fleet",
		"test/peers",
		"test/rig",
		"test/vm/cmd/vm",
	},
	"keys": {
		"lb/ipvs",
		"lb/nft",
		"mesh",
	},
	"lines": {
		"cmd/meshctl/meshctl_test.go",
		"test/dataplane/reported_linux_test.go",
		"test/netns/doctor_test.go",
	},
	"methods": {
		"examples/demo.demo",
		"lb/nft.Helpers",
	},
	"words": {
		"cmd/meshctl",
		"examples/demo",
		"lb/ipvs",
		"lb/nft",
		"mesh",
		"mesh/control",
		"test/bench/lb",
		"test/chaos",
		"test/vm",
	},
}
