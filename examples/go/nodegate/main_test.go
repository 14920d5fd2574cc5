package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"sidecar-shim.example/hook"
)

func TestCheckGate(t *testing.T) {
	file = filepath.Join(t.TempDir(), "closed")
	check := func() error { return checkGate(context.Background(), hook.VMI("{}"), "node-a") }
	if err := check(); err != nil {
		t.Errorf("without the file: %v", err)
	}
	if err := os.WriteFile(file, []byte("new firmware until noon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var refusal *hook.Error
	err := check()
	if !errors.As(err, &refusal) || refusal.Retryable || err.Error() != "node node-a does not accept VMs: new firmware until noon" {
		t.Errorf("with the file: %v", err)
	}
	file = filepath.Dir(file) // a directory cannot be read
	if err := check(); !errors.As(err, &refusal) || !refusal.Retryable {
		t.Errorf("with a file that cannot be read: %v", err)
	}
}
