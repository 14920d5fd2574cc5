package hook

import (
	"os"
	"syscall"
)

// takeStdin returns standard input as a descriptor of its own. Descriptor 0 becomes empty: nobody else
// reads what the shim writes.
func takeStdin() (*os.File, error) {
	empty, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer empty.Close()
	return take(os.Stdin, empty)
}

// takeStdout returns standard output as a descriptor of its own. Descriptor 1 becomes standard error: what
// the hook or its child processes print is no part of what is answered.
func takeStdout() (*os.File, error) {
	return take(os.Stdout, os.Stderr)
}

// take returns a standard descriptor's file under another number, which no child process inherits, and
// puts another file in its place.
func take(standard, instead *os.File) (*os.File, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	taken, err := syscall.Dup(int(standard.Fd()))
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(taken)
	// Not dup2, which arm64 does not have.
	if err := syscall.Dup3(int(instead.Fd()), int(standard.Fd()), 0); err != nil {
		return nil, os.NewSyscallError("dup3", err)
	}
	return os.NewFile(uintptr(taken), standard.Name()), nil
}
