package keys

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/mesh/control"
	"meshd/mesh/internal/store"
)

func base64Of(i int) string { return base64.StdEncoding.EncodeToString(testKey(i)) }

func testKey(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 32) }

func keystoreOf(t *testing.T, keys ...[]byte) (*Store, *memberlist.Keyring) {
	t.Helper()
	dir, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	k, err := Open(dir, keys)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		t.Fatal(err)
	}
	return k, ring
}

// Whatever is asked, a node keeps a key that it encrypts with, and few of them.
func TestKeyChanges(t *testing.T) {
	k, ring := keystoreOf(t, testKey(1))
	if err := k.change(ring, opRemove, testKey(1)); err == nil {
		t.Error("the only key was removed")
	}
	full := 0
	for i := range 100 {
		if err := k.change(ring, opInstall, testKey(10+i)); err != nil {
			full++
		}
	}
	if n := len(ring.GetKeys()); n != maxKeys || full != 100-maxKeys+1 {
		t.Errorf("%d keys, %d were refused", n, full)
	}
	if err := k.change(ring, opInstall, testKey(10)); err != nil {
		t.Errorf("a key that is there: %v", err)
	}
	for _, bad := range []error{
		k.change(ring, opUse, testKey(9)), k.change(ring, opRemove, testKey(1)), k.change(ring, "explode", testKey(10)),
		k.change(ring, opInstall, nil), k.change(ring, opInstall, []byte("short")),
	} {
		if bad == nil {
			t.Error("a change that cannot be was made")
		}
	}
	if err := errors.Join(k.change(ring, opUse, testKey(10)), k.change(ring, opRemove, testKey(1)),
		k.change(ring, opRemove, testKey(1))); err != nil {
		t.Error(err)
	}
	again, err := Open(k.disk, [][]byte{testKey(1)})
	if err != nil || len(again.All()) != maxKeys-1 || !bytes.Equal(again.All()[0], testKey(10)) {
		t.Errorf("after a restart: %d keys, %v", len(again.All()), err)
	}
	if d := again.Difference("/etc/meshd/key"); !strings.Contains(d, control.KeyID(testKey(10))) ||
		!strings.Contains(d, "/etc/meshd/key") {
		t.Errorf("status says %q", d)
	}
	same, err := Open(k.disk, [][]byte{testKey(1)})
	if err != nil {
		t.Fatal(err)
	}
	same.configured = [][]byte{testKey(10), testKey(1)} // the first is in use, and the file holds another one besides
	if d := same.Difference("/etc/meshd/key"); strings.Contains(d, "in use is") ||
		!strings.Contains(d, "in the file are "+control.KeyID(testKey(10))+", "+control.KeyID(testKey(1))+".") {
		t.Errorf("status says %q", d)
	}
	replaced, err := Open(k.disk, [][]byte{testKey(10)})
	if err != nil || len(replaced.All()) != 1 || replaced.Difference("x") != "" {
		t.Errorf("with the file replaced: %d keys, %v, %q", len(replaced.All()), err, replaced.Difference("x"))
	}
}

// Who replaces the key file after a rotation, as status asks for, is not asked
// again; one that the node could not start with is told before it tries.
func TestKeyFileReplaced(t *testing.T) {
	k, ring := keystoreOf(t, testKey(1))
	file := filepath.Join(t.TempDir(), "key")
	write := func(mode os.FileMode, key []byte) {
		t.Helper()
		text := base64.StdEncoding.EncodeToString(key) + "\n"
		if err := errors.Join(os.WriteFile(file, []byte(text), mode), os.Chmod(file, mode)); err != nil {
			t.Fatal(err)
		}
		k.Look(file)
	}
	write(0o600, testKey(1))
	if err := errors.Join(k.change(ring, opInstall, testKey(2)), k.change(ring, opUse, testKey(2)),
		k.change(ring, opRemove, testKey(1))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode os.FileMode
		key  []byte
		says string
	}{
		{0o600, testKey(1), control.KeyID(testKey(1))},
		{0o644, testKey(2), "chmod 600"},
		{0o600, testKey(3), control.KeyID(testKey(3))},
	} {
		write(c.mode, c.key)
		if d := k.Difference(file); !strings.Contains(d, c.says) {
			t.Errorf("with mode %o status says %q, not %q", c.mode, d, c.says)
		}
	}
	write(0o600, testKey(2))
	if d := k.Difference(file); d != "" {
		t.Errorf("with the file replaced status says %q", d)
	}
}

// What is on disk is what the ring holds, however many change it at once.
func TestKeyChangesAtOnce(t *testing.T) {
	k, ring := keystoreOf(t, testKey(1))
	var wg sync.WaitGroup
	for i := range maxKeys - 1 {
		wg.Go(func() {
			if err := k.change(ring, opInstall, testKey(2+i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := k.All(); len(got) != maxKeys {
		t.Errorf("%d keys were kept of %d", len(got), maxKeys)
	}
}

// keys.json that holds too much, or nothing, is damaged: it never means no encryption.
func TestDamagedKeystore(t *testing.T) {
	k, _ := keystoreOf(t, testKey(1))
	for _, keys := range [][][]byte{{}, {[]byte("short")}, {
		testKey(1), testKey(2), testKey(3), testKey(4), testKey(5),
		testKey(6), testKey(7), testKey(8), testKey(9),
	}} {
		if err := k.keep(keys); err != nil {
			t.Fatal(err)
		}
		if got, err := Open(k.disk, [][]byte{testKey(1)}); err == nil {
			t.Errorf("%d keys on disk: opened with %d", len(keys), len(got.All()))
		}
	}
}

// A peer alone cannot make a node use a key that others lack, nor remove one
// that they use.
func TestJudgeKeys(t *testing.T) {
	both, old, changed := answer{IDs: []string{"a", "b"}}, answer{IDs: []string{"a"}},
		answer{IDs: []string{"b", "a"}}
	for _, c := range []struct {
		op, id, primary string
		said            map[string]answer
		ok              bool
	}{
		{opUse, "b", "a", map[string]answer{"x": both, "y": changed}, true},
		{opUse, "b", "a", map[string]answer{"x": both, "y": old}, false},
		{opUse, "b", "a", nil, false},
		{opRemove, "a", "b", map[string]answer{"x": changed, "y": {IDs: []string{"b"}}}, true},
		{opRemove, "a", "b", map[string]answer{"x": changed, "y": both}, false},
		{opRemove, "a", "b", map[string]answer{"x": old}, false},
		{opRemove, "c", "b", map[string]answer{"x": old}, false},
		{opRemove, "a", "b", map[string]answer{"x": {}}, false},
		{opRemove, "a", "b", nil, false},
	} {
		if err := checkChange(c.op, c.id, c.primary, c.said); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Requests and answers of peers are bounded and checked.
func TestHostileKeyCalls(t *testing.T) {
	for _, body := range []string{
		"", "null", "[]", "{", `{"op":"explode"}`, `{"op":"install"}`, `{"op":"install","key":"c2hvcnQ="}`,
		`{"op":"install","key":"!"}`,
		`{"op":"use"}`, `{"op":"use","id":"../../etc"}`, `{"op":"remove","id":"` + strings.Repeat("a", 5000) + `"}`,
	} {
		if c, err := parseCall([]byte(body)); err == nil {
			t.Errorf("%.60s: %+v", body, c)
		}
	}
	for _, body := range []string{
		"", "[]", `{"ids":["\u001b[2J"]}`, `{"ids":["` + strings.Repeat("a", 1<<20) + `"]}`,
		`{"ids":[` + strings.Repeat(`"0123456789ab",`, 99) + `"0123456789ab"]}`,
	} {
		if a, err := parseAnswer([]byte(body)); err == nil {
			t.Errorf("%.60s: %+v", body, a)
		}
	}
	if a, err := parseAnswer([]byte(`{"error":"` + strings.Repeat("x", 9000) + `"}`)); err != nil ||
		len(a.Error) > 512 {
		t.Errorf("%d bytes of an error, %v", len(a.Error), err)
	}
}

// A judgement that panics keeps nobody waiting, and allows nothing.
func TestJudgementThatPanics(t *testing.T) {
	var j verdicts
	func() {
		defer func() { _ = recover() }() // as whoever runs the handlers of calls does
		_ = j.get("use x", func() error { panic("x") })
	}()
	said := make(chan error, 1)
	go func() { said <- j.get("use x", func() error { return nil }) }()
	select {
	case err := <-said:
		if err == nil {
			t.Error("allowed, though nothing was found out")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it is waited for without an end")
	}
}

// Asked many times at once, others are asked once; too many questions are refused.
func TestJudgements(t *testing.T) {
	var j verdicts
	var asked sync.Map
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			err := j.get("use x", func() error {
				if _, twice := asked.LoadOrStore("x", true); twice {
					t.Error("asked twice")
				}
				return errors.New("no")
			})
			if err == nil || err.Error() != "no" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	refused := 0
	for i := range 100 {
		if err := j.get(fmt.Sprint(i), func() error { return nil }); err != nil {
			refused++
		}
	}
	if refused != 100-maxVerdicts+1 {
		t.Errorf("%d of 100 refused", refused)
	}
}

// The keyring on disk is as secret as the key file.
func TestKeyringOnDiskIsPrivate(t *testing.T) {
	d := store.Unlocked(t.TempDir())
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	if err := os.WriteFile(d.File(FileName), []byte(`{"from":"","keys":["`+base64.StdEncoding.EncodeToString(key)+`"]}`),
		0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(d, [][]byte{key}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(d.File(FileName), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(d, [][]byte{key}); err == nil || !strings.Contains(err.Error(),
		"can be read or changed by others") {
		t.Error(err)
	}
}

// A key file that was written on another system.
func TestKeyFileOfAnotherSystem(t *testing.T) {
	if got, err := Parse("\ufeff" + base64Of(1) + "\r\n"); err != nil || len(got) != 1 {
		t.Errorf("%d keys, %v", len(got), err)
	}
}
