package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/hooktest"
)

func TestCheckGate(t *testing.T) {
	ctx, log := hooktest.New(t, hooktest.Call{Hook: hook.PreVMStart})
	file = filepath.Join(t.TempDir(), "closed")
	check := func() error { return checkGate(ctx, hook.VMI(`{"metadata": {"name": "vm1"}}`), "node-a") }
	if err := check(); err != nil {
		t.Errorf("without the file: %v", err)
	}
	if err := os.WriteFile(file, []byte("new firmware until noon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := check()
	if !errors.Is(err, hook.ErrRefused) || errors.Is(err, hook.ErrRetryable) || err.Error() != "node node-a does not accept VMs: new firmware until noon" {
		t.Errorf("with the file: %v", err)
	}
	if !log.Contains(slog.LevelInfo, "kept off") || log.Lines()[0].Fields["name"] != "vm1" {
		t.Errorf("%v", log.Lines())
	}
	file = filepath.Dir(file) // a directory cannot be read
	if err := check(); !errors.Is(err, hook.ErrRetryable) {
		t.Errorf("with a file that cannot be read: %v", err)
	}
}
