package hook

import (
	"os"
	"syscall"
)

// takeStdin returns stdin as a new descriptor. Descriptor 0 becomes empty, so that only the worker
// reads messages from the shim.
func takeStdin() (*os.File, error) {
	empty, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer empty.Close()
	return take(os.Stdin, empty)
}

// takeStdout returns stdout as a new descriptor. Descriptor 1 becomes stderr, so that output of the
// hook and its child processes does not mix with messages to the shim.
func takeStdout() (*os.File, error) {
	return take(os.Stdout, os.Stderr)
}

// take duplicates a standard stream to a new descriptor, which child processes do not inherit, and
// replaces the stream.
func take(standard, instead *os.File) (*os.File, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	taken, err := syscall.Dup(int(standard.Fd()))
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(taken)
	// dup2 does not exist on arm64.
	if err := syscall.Dup3(int(instead.Fd()), int(standard.Fd()), 0); err != nil {
		return nil, os.NewSyscallError("dup3", err)
	}
	return os.NewFile(uintptr(taken), standard.Name()), nil
}
