package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"time"
)

// Keeper reads and writes resolv.conf files for sandboxes. The owner of a container
// decides what is at a path inside it: any file of the host may be mounted there,
// and reading may take for ever. So meshd itself opens nothing. It starts a child
// process that becomes the container's root and nothing more, that is ended in
// time, and whose answer is data of bounded length. The methods are safe for
// concurrent use.
type Keeper struct {
	command []string
	slots   chan struct{} // bounds the children at once, those included that the kernel does not let end
}

// KeeperCommand is the first argument that makes meshd such a child; see
// ServeKeeper.
const KeeperCommand = "sandbox-file"

// The bounds of a child.
const (
	keeperTime     = 5 * time.Second
	keeperChildren = 16
	keeperInput    = 2 << 20 // bytes: three texts of maxWritten in base64
	keeperOutput   = 2 << 20 // bytes
	keeperMessage  = 2 << 10 // bytes of an error
)

// NewKeeper returns a Keeper whose children run the command, which must call
// ServeKeeper.
func NewKeeper(command ...string) *Keeper {
	return &Keeper{command: command, slots: make(chan struct{}, keeperChildren)}
}

// keeperTask is what a child is to do.
type keeperTask struct {
	Do   string     `json:"do"`
	Name string     `json:"name,omitempty"` // of the sandbox, for doPlan
	Conf ResolvConf `json:"conf"`
}

const (
	doPlan    = "plan"
	doApply   = "apply"
	doRestore = "restore"
	doLook    = "look"
)

// keeperReply is what a child has done.
type keeperReply struct {
	Conf    ResolvConf `json:"conf"`
	Applied bool       `json:"applied,omitempty"` // of doLook
	Error   string     `json:"error,omitempty"`
	Changed bool       `json:"changed,omitempty"` // the error is ErrChanged
}

// Plan reads the file and plans what to write for the sandbox of that name; it
// changes nothing. root is empty or ProcessRoot, of the process that started at
// start; file is absolute.
func (k *Keeper) Plan(ctx context.Context, root string, start uint64, file, name string) (*ResolvConf, error) {
	r, err := k.run(ctx, keeperTask{Do: doPlan, Name: name, Conf: ResolvConf{
		Root: root, Start: start,
		Path: path.Clean(file),
	}})
	return &r.Conf, err
}

// Apply writes the file, and returns conf with what Restore needs to know of it. It
// does nothing if the file is written already, and returns ErrChanged if the file
// is not what Plan read.
func (k *Keeper) Apply(ctx context.Context, conf *ResolvConf) (*ResolvConf, error) {
	r, err := k.run(ctx, keeperTask{Do: doApply, Conf: *conf})
	if err != nil {
		return conf, err
	}
	return &r.Conf, nil
}

// Restore puts back what was there, or removes what was not. It returns
// ErrChanged, and leaves the file, if it is not what Apply wrote. The error then
// holds the former text, which is known nowhere else.
func (k *Keeper) Restore(ctx context.Context, conf *ResolvConf) error {
	_, err := k.run(ctx, keeperTask{Do: doRestore, Conf: *conf})
	if errors.Is(err, ErrChanged) && !conf.Created {
		err = fmt.Errorf("%w; before the sandbox it was %q", err, clip(conf.Previous, keeperMessage))
	}
	return err
}

// Applied reports whether the file is what Apply wrote.
func (k *Keeper) Applied(ctx context.Context, conf *ResolvConf) (bool, error) {
	r, err := k.run(ctx, keeperTask{Do: doLook, Conf: *conf})
	return r.Applied, err
}

// run starts one child for the task and returns its reply.
func (k *Keeper) run(ctx context.Context, task keeperTask) (keeperReply, error) {
	ctx, cancel := context.WithTimeout(ctx, keeperTime)
	defer cancel()
	where := task.Conf.Root + task.Conf.Path
	in, err := json.Marshal(task)
	if err != nil {
		return keeperReply{}, err
	}
	select {
	case k.slots <- struct{}{}:
	case <-ctx.Done():
		return keeperReply{}, fmt.Errorf("%s: %d files of sandboxes keep meshd waiting: %w", where, keeperChildren, ctx.Err())
	}
	type result struct {
		out []byte
		err error
	}
	done := make(chan result, 1)
	go func() { // not even SIGKILL ends a process that waits for a hostile file system
		defer func() { <-k.slots }()
		out, err := k.child(ctx, in)
		done <- result{out, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return keeperReply{}, fmt.Errorf("%s: %w", where, r.err)
		}
		return parseReply(where, r.out)
	case <-ctx.Done():
		return keeperReply{}, fmt.Errorf("%s: the file system does not answer: %w", where, ctx.Err())
	}
}

func (k *Keeper) child(ctx context.Context, in []byte) ([]byte, error) {
	cmd := exec.CommandContext(ctx, k.command[0], k.command[1:]...)
	out, said := &limited{rest: keeperOutput}, &limited{rest: keeperMessage}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), out, said
	cmd.Dir, cmd.Env = "/", []string{} // it gets nothing of ours
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, said.text)
	}
	return out.text, nil
}

func parseReply(where string, out []byte) (keeperReply, error) {
	var r keeperReply
	if err := json.Unmarshal(out, &r); err != nil {
		return keeperReply{}, fmt.Errorf("%s: unreadable reply: %w", where, err)
	}
	text := clip([]byte(r.Error), keeperMessage)
	switch {
	case r.Changed:
		return r, fmt.Errorf("%s: %w", cmp.Or(text, where), ErrChanged)
	case text != "":
		return r, errors.New(text)
	}
	return r, nil
}

// clip bounds a text for people, in bytes.
func clip(text []byte, most int) string {
	if len(text) <= most {
		return string(text)
	}
	return string(text[:most]) + "…"
}

// limited is a buffer that refuses to grow beyond a number of bytes. It does not
// embed one, whose ReadFrom would know no bound.
type limited struct {
	text []byte
	rest int
}

var errTooLong = errors.New("too long an answer")

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.rest {
		return 0, errTooLong
	}
	l.rest -= len(p)
	l.text = append(l.text, p...)
	return len(p), nil
}
