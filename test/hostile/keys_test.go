//go:build linux

package hostile

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"time"

	"meshd/mesh/control"
)

// rotate changes the key of the mesh as an operator does.
func (m *mesh) rotate() error {
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh)
	text := base64.StdEncoding.EncodeToString(fresh)
	old, err := m.nodes[0].API.Keys(m.ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(m.key("install", text), m.key("use", text)); err != nil {
		return err
	}
	if err := os.WriteFile(m.fleet.KeyFile, []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	return m.key("remove", old.Keys[0].ID)
}

// thereAndBack changes it to another one, and back to what it was.
func (m *mesh) thereAndBack() error {
	had, err := os.ReadFile(m.fleet.KeyFile)
	if err != nil {
		return err
	}
	if err := m.rotate(); err != nil {
		return err
	}
	other, err := m.nodes[0].API.Keys(m.ctx)
	if err != nil {
		return err
	}
	own := string(bytes.TrimSpace(had))
	if err := errors.Join(m.key("install", own), m.key("use", own)); err != nil {
		return err
	}
	if err := os.WriteFile(m.fleet.KeyFile, had, 0o600); err != nil {
		return err
	}
	return m.key("remove", other.Keys[0].ID)
}

// key does one step of it, on all hosts.
func (m *mesh) key(step, key string) error {
	api := m.nodes[0].API
	do := map[string]func() (control.KeyReply, error){
		"install": func() (control.KeyReply, error) { return api.InstallKey(m.ctx, control.KeyRequest{Key: key}) },
		"use":     func() (control.KeyReply, error) { return api.UseKey(m.ctx, control.KeyRequest{Key: key}) },
		"remove":  func() (control.KeyReply, error) { return api.RemoveKey(m.ctx, control.KeyRequest{Key: key}) },
	}[step]
	return m.soon(20*time.Second, func() error {
		r, err := do()
		if err == nil && r.OK < hosts {
			err = fmt.Errorf("%d of %d nodes: %+v", r.OK, r.Total, r.Results)
		}
		if err != nil {
			return fmt.Errorf("key %s: %w", step, err)
		}
		return nil
	})
}
