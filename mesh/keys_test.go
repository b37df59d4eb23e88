package mesh

import (
	"bytes"
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
)

func testKey(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 32) }

func keystoreOf(t *testing.T, keys ...[]byte) (*keystore, *memberlist.Keyring) {
	t.Helper()
	dir, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.close() })
	k, err := openKeystore(dir, keys)
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
	if err := k.change(ring, keyRemove, testKey(1)); err == nil {
		t.Error("the only key was removed")
	}
	full := 0
	for i := range 100 {
		if err := k.change(ring, keyInstall, testKey(10+i)); err != nil {
			full++
		}
	}
	if n := len(ring.GetKeys()); n != maxKeys || full != 100-maxKeys+1 {
		t.Errorf("%d keys, %d were refused", n, full)
	}
	if err := k.change(ring, keyInstall, testKey(10)); err != nil {
		t.Errorf("a key that is there: %v", err)
	}
	for _, bad := range []error{
		k.change(ring, keyUse, testKey(9)), k.change(ring, keyRemove, testKey(1)), k.change(ring, "explode", testKey(10)),
		k.change(ring, keyInstall, nil), k.change(ring, keyInstall, []byte("short")),
	} {
		if bad == nil {
			t.Error("a change that cannot be was made")
		}
	}
	if err := errors.Join(k.change(ring, keyUse, testKey(10)), k.change(ring, keyRemove, testKey(1)),
		k.change(ring, keyRemove, testKey(1))); err != nil {
		t.Error(err)
	}
	again, err := openKeystore(k.dir, [][]byte{testKey(1)})
	if err != nil || len(again.all()) != maxKeys-1 || !bytes.Equal(again.all()[0], testKey(10)) {
		t.Errorf("after a restart: %d keys, %v", len(again.all()), err)
	}
	if d := again.differs("/etc/meshd/key"); !strings.Contains(d, control.KeyID(testKey(10))) ||
		!strings.Contains(d, "/etc/meshd/key") {
		t.Errorf("status says %q", d)
	}
	same, err := openKeystore(k.dir, [][]byte{testKey(1)})
	if err != nil {
		t.Fatal(err)
	}
	same.configured = [][]byte{testKey(10), testKey(1)} // the first is in use, and the file holds another one besides
	if d := same.differs("/etc/meshd/key"); strings.Contains(d, "in use is") ||
		!strings.Contains(d, "in the file are "+control.KeyID(testKey(10))+", "+control.KeyID(testKey(1))+".") {
		t.Errorf("status says %q", d)
	}
	replaced, err := openKeystore(k.dir, [][]byte{testKey(10)})
	if err != nil || len(replaced.all()) != 1 || replaced.differs("x") != "" {
		t.Errorf("with the file replaced: %d keys, %v, %q", len(replaced.all()), err, replaced.differs("x"))
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
		k.look(file)
	}
	write(0o600, testKey(1))
	if err := errors.Join(k.change(ring, keyInstall, testKey(2)), k.change(ring, keyUse, testKey(2)),
		k.change(ring, keyRemove, testKey(1))); err != nil {
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
		if d := k.differs(file); !strings.Contains(d, c.says) {
			t.Errorf("with mode %o status says %q, not %q", c.mode, d, c.says)
		}
	}
	write(0o600, testKey(2))
	if d := k.differs(file); d != "" {
		t.Errorf("with the file replaced status says %q", d)
	}
}

// What is on disk is what the ring holds, however many change it at once.
func TestKeyChangesAtOnce(t *testing.T) {
	k, ring := keystoreOf(t, testKey(1))
	var wg sync.WaitGroup
	for i := range maxKeys - 1 {
		wg.Go(func() {
			if err := k.change(ring, keyInstall, testKey(2+i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := k.all(); len(got) != maxKeys {
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
		if got, err := openKeystore(k.dir, [][]byte{testKey(1)}); err == nil {
			t.Errorf("%d keys on disk: opened with %d", len(keys), len(got.all()))
		}
	}
}

// A peer alone cannot make a node use a key that others lack, nor remove one
// that they use.
func TestJudgeKeys(t *testing.T) {
	both, old, changed := keyAnswer{IDs: []string{"a", "b"}}, keyAnswer{IDs: []string{"a"}},
		keyAnswer{IDs: []string{"b", "a"}}
	for _, c := range []struct {
		op, id, primary string
		said            map[string]keyAnswer
		ok              bool
	}{
		{keyUse, "b", "a", map[string]keyAnswer{"x": both, "y": changed}, true},
		{keyUse, "b", "a", map[string]keyAnswer{"x": both, "y": old}, false},
		{keyUse, "b", "a", nil, false},
		{keyRemove, "a", "b", map[string]keyAnswer{"x": changed, "y": {IDs: []string{"b"}}}, true},
		{keyRemove, "a", "b", map[string]keyAnswer{"x": changed, "y": both}, false},
		{keyRemove, "a", "b", map[string]keyAnswer{"x": old}, false},
		{keyRemove, "c", "b", map[string]keyAnswer{"x": old}, false},
		{keyRemove, "a", "b", map[string]keyAnswer{"x": {}}, false},
		{keyRemove, "a", "b", nil, false},
	} {
		if err := judgeKeys(c.op, c.id, c.primary, c.said); (err == nil) != c.ok {
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
		if c, err := parseKeyCall([]byte(body)); err == nil {
			t.Errorf("%.60s: %+v", body, c)
		}
	}
	for _, body := range []string{
		"", "[]", `{"ids":["\u001b[2J"]}`, `{"ids":["` + strings.Repeat("a", 1<<20) + `"]}`,
		`{"ids":[` + strings.Repeat(`"0123456789ab",`, 99) + `"0123456789ab"]}`,
	} {
		if a, err := parseKeyAnswer([]byte(body)); err == nil {
			t.Errorf("%.60s: %+v", body, a)
		}
	}
	if a, err := parseKeyAnswer([]byte(`{"error":"` + strings.Repeat("x", 9000) + `"}`)); err != nil ||
		len(a.Error) > 512 {
		t.Errorf("%d bytes of an error, %v", len(a.Error), err)
	}
}

// A judgement that panics keeps nobody waiting, and allows nothing.
func TestJudgementThatPanics(t *testing.T) {
	var j judgements
	func() {
		defer func() { _ = recover() }() // as whoever runs the handlers of calls does
		_ = j.judge("use x", func() error { panic("x") })
	}()
	said := make(chan error, 1)
	go func() { said <- j.judge("use x", func() error { return nil }) }()
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
	var j judgements
	var asked sync.Map
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			err := j.judge("use x", func() error {
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
		if err := j.judge(fmt.Sprint(i), func() error { return nil }); err != nil {
			refused++
		}
	}
	if refused != 100-judgementsAtOnce+1 {
		t.Errorf("%d of 100 refused", refused)
	}
}
