package holder_test

import (
	"errors"
	"fmt"

	"meshd/lb/holder"
)

// Who programs a namespace takes it first, and lets go at the end.
func Example() {
	h := holder.New("") // of the process's own namespace
	switch err := h.Take(); {
	case errors.Is(err, holder.ErrTaken):
		fmt.Println("another process programs it:", err)
	case err != nil:
		fmt.Println(err)
	default:
		defer h.Release()
	}
}
