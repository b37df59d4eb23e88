package store_test

import (
	"fmt"
	"os"
	"path/filepath"

	"meshd/mesh/internal/store"
)

// A file that was saved is there in the next life; only one process at a time has the
// directory.
func Example() {
	tmp, _ := os.MkdirTemp("", "store")
	defer os.RemoveAll(tmp)
	dir, err := store.Open(filepath.Join(tmp, "data"), store.File{Name: "node.json"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(dir.Save("node.json", map[string]string{"node": "host1"}))
	_, err = store.Acquire(dir.Root())
	fmt.Println(err)
	_ = dir.Close()

	var saved map[string]string
	fmt.Println(store.Unlocked(dir.Root()).Load("node.json", &saved), saved["node"])
	// Output:
	// <nil>
	// the data directory is in use
	// <nil> host1
}
