// Keeps VMs off a node while a file exists there. The VM's owner reads the file's text as the
// reason.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"sidecar-shim.example/hook"
)

// Path of the file, which a DaemonSet mounts from its node.
var file = cmp.Or(os.Getenv("NODEGATE_FILE"), "/run/nodegate/closed")

func checkGate(ctx context.Context, vmi hook.VMI, node string) error {
	reason, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return hook.Retryf("node %s: cannot read whether it accepts VMs: %w", node, err)
	}
	slog.InfoContext(ctx, "a VM was kept off this node", "namespace", vmi.Namespace(), "name", vmi.Name())
	return hook.Refusef("node %s does not accept VMs: %s", node, bytes.TrimSpace(reason))
}

func main() {
	worker := hook.Worker{Name: "nodegate", Version: "1.0.0", Concurrency: 16}
	worker.OnNode(hook.PreVMStart, checkGate)
	worker.OnNode(hook.PreMigrationTarget, checkGate)
	os.Exit(worker.Run())
}
