// Keeps VMs off a node as long as a file lies there. The file's text is the reason that owners are told.
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

// The file, which a DaemonSet mounts from its node.
var file = cmp.Or(os.Getenv("NODEGATE_FILE"), "/run/nodegate/closed")

func checkGate(ctx context.Context, vmi hook.VMI, node string) error {
	reason, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return hook.Retry("node %s: cannot find out whether it takes VMs: %w", node, err)
	}
	slog.InfoContext(ctx, "a VM was kept off this node")
	return hook.Refuse("node %s takes no VMs now: %s", node, bytes.TrimSpace(reason))
}

func main() {
	worker := hook.Worker{Name: "nodegate", Version: "1.0.0", Concurrency: 16}
	worker.NodeHook("preVMStart", checkGate)
	worker.NodeHook("preMigrationTarget", checkGate)
	worker.Run()
}
