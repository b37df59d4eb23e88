package vm

import (
	"os/exec"
	"syscall"
)

// endWithUs makes the kernel end a child when we end, however we do.
func endWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
