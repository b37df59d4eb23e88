package sandbox

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
)

// Applied reports whether the file is what Apply wrote.
func (r *ResolvConf) Applied() (bool, error) {
	f, err := r.open()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, r.explain(err)
	}
	defer f.Close()
	now, err := io.ReadAll(f)
	return err == nil && bytes.Equal(now, r.Written), r.explain(err)
}
