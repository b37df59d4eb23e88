//go:build linux

package hostile

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"time"

	"meshd/mesh/control"
)

// rotate changes the key of the mesh as an operator does; force: also if some that
// live do not have it. Those who are away, which other cases left so, are locked out.
func (m *mesh) rotate(force bool) error {
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh)
	text := base64.StdEncoding.EncodeToString(fresh)
	old, err := m.nodes[0].API.Keys(m.ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(m.key("install", text, false), m.key("use", text, force)); err != nil {
		return err
	}
	if err := os.WriteFile(m.fleet.KeyFile, []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	return m.key("remove", old.Keys[0].ID, true)
}

// thereAndBack changes it to another one, and back to what it was.
func (m *mesh) thereAndBack() error {
	had, err := os.ReadFile(m.fleet.KeyFile)
	if err != nil {
		return err
	}
	if err := m.rotate(false); err != nil {
		return err
	}
	other, err := m.nodes[0].API.Keys(m.ctx)
	if err != nil {
		return err
	}
	own := string(bytes.TrimSpace(had))
	if err := errors.Join(m.key("install", own, false), m.key("use", own, false)); err != nil {
		return err
	}
	if err := os.WriteFile(m.fleet.KeyFile, had, 0o600); err != nil {
		return err
	}
	return m.key("remove", other.Keys[0].ID, true)
}

// key does one step of it, on all hosts.
func (m *mesh) key(step, key string, force bool) error {
	api := m.nodes[0].API
	do := map[string]func(context.Context, control.KeyRequest) (control.KeyReply, error){
		"install": api.InstallKey, "use": api.UseKey, "remove": api.RemoveKey,
	}[step]
	return m.soon(20*time.Second, func() error {
		r, err := do(m.ctx, control.KeyRequest{Key: key, Force: force})
		if err == nil && r.OK < hosts {
			err = fmt.Errorf("%d of %d nodes: %+v", r.OK, r.Total, r.Results)
		}
		if err != nil {
			return fmt.Errorf("key %s: %w", step, err)
		}
		return nil
	})
}
