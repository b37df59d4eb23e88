package keys_test

import (
	"fmt"

	"meshd/mesh/internal/keys"
)

// The first key of a file is the one to encrypt with.
func ExampleParse() {
	parsed, err := keys.Parse("# made by meshctl keygen\nMDEyMzQ1Njc4OWFiY2RlZg==\n")
	fmt.Println(len(parsed), len(parsed[0]), err)
	_, err = keys.Parse("secret\n")
	fmt.Println(err)
	// Output:
	// 1 16 <nil>
	// line 1 is not a base64 key of 16, 24 or 32 bytes; make one with: meshctl keygen
}
