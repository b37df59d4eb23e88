package mesh_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"meshd/mesh/config"
	"meshd/mesh/control"
)

// A peer with the key that asks for what would cut a node off, or fill it,
// changes nothing that matters, and what it does can be undone.
func TestHostileKeyPeer(t *testing.T) {
	key := written(t, aKey)
	a := start(t, config.Config{Node: "a", KeyFile: key})
	b := start(t, config.Config{Node: "b", KeyFile: key, Join: []string{a.addr()}})
	evil := start(t, config.Config{Node: "evil", KeyFile: key, Join: []string{a.addr()}})
	eventually(t, func() error {
		for _, n := range []*node{a, b, evil} {
			if k, err := n.Keys(t.Context()); err != nil || k.OK != 3 {
				return errors.New("they have not met")
			}
		}
		return nil
	})
	ask := func(body string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		said, err := evil.AskKeys(ctx, "a", body)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		return said
	}
	const its = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
	r, err := a.Keys(t.Context())
	if err != nil || len(r.Keys) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	own := r.Keys[0].ID
	ask(`{"op":"install","key":"` + its + `"}`)
	for _, body := range []string{
		`{"op":"use","key":"` + its + `"}`, `{"op":"remove","id":"` + own + `"}`, `{"op":"use","id":"000000000000"}`,
		`{"op":"install","key":"c2hvcnQ="}`, `{"op":"\u001b[2J"}`, `{`, "", strings.Repeat("x", 100_000),
	} {
		if said := ask(body); !strings.Contains(said, `"error"`) {
			t.Errorf("%.60s: %s", body, said)
		}
	}
	for i := range 50 {
		key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{byte(i)}, 32))
		ask(`{"op":"install","key":"` + key + `"}`)
	}
	k, err := b.Keys(t.Context())
	if err != nil || k.OK != 3 {
		t.Fatalf("they do not hear each other any more: %+v, %v", k, err)
	}
	if len(k.Keys) > 9 || k.Keys[0].ID != own || k.Keys[0].Primary != 3 {
		t.Errorf("the keys are %+v", k.Keys)
	}
	if _, err := evil.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	evil.stop()
	for _, x := range k.Keys[1:] { // what it left is taken away like any key
		eventually(t, func() error {
			_, err := a.RemoveKey(t.Context(), control.KeyRequest{Key: x.ID})
			return err
		})
	}
	if k, err := a.Keys(t.Context()); err != nil || len(k.Keys) != 1 {
		t.Errorf("%+v, %v", k, err)
	}
}
