package config_test

import (
	"fmt"

	"meshd/mesh/config"
)

// What a person writes is completed with the defaults, or refused with what to write.
func ExampleConfig_Check() {
	s, err := config.Config{Node: "Host1", Bind: "10.0.0.1", Insecure: true, Join: []string{"10.0.0.2"}}.Check()
	fmt.Println(s.Node, s.BindAddr, s.Join, s.DataDir, err)
	_, err = config.Config{Node: "host1", Bind: "10.0.0"}.Check()
	fmt.Println(err)
	// Output:
	// host1 10.0.0.1:7946 [10.0.0.2:7946] /var/lib/meshd <nil>
	// bind: "10.0.0" is not IP:PORT; write 10.0.0.1:7946 or [fd00::1]:7946
}
