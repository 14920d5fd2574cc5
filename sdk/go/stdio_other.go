//go:build !linux

package hook

import "os"

// takeStdin returns stdin.
func takeStdin() (*os.File, error) { return os.Stdin, nil }

// takeStdout returns stdout, and redirects output of the hook to stderr. Output of child processes
// is not redirected: this is only for trying a hook during development; KubeVirt runs on Linux.
func takeStdout() (*os.File, error) {
	output := os.Stdout
	os.Stdout = os.Stderr
	return output, nil
}
