package docker

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

// A process is told from another by when it was started, and its end is told at once.
func TestProcess(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	p, err := OpenProcess(pid, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if !p.Sure() {
		t.Error("its own start is not believed")
	}
	old, err := OpenProcess(pid, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if old.Sure() {
		t.Error("it is taken for a process of an hour ago")
	}
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-old.Died():
		t.Error("Close is taken for its end")
	case <-p.Died():
		t.Error("it lives")
	default:
	}
	_ = in.Close()
	_ = cmd.Wait()
	<-p.Died()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := OpenProcess(pid, time.Now()); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a process that is gone: %v", err)
	}
}
