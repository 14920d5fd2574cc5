//go:build !linux

package hook

import "os"

// takeStdin returns standard input.
func takeStdin() (*os.File, error) { return os.Stdin, nil }

// takeStdout returns standard output, and makes standard error of what the hook prints. That is enough to
// try a hook where it is written; KubeVirt runs on Linux.
func takeStdout() (*os.File, error) {
	output := os.Stdout
	os.Stdout = os.Stderr
	return output, nil
}
