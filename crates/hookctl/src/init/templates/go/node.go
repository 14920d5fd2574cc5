// Starts a VM only in the rack that its annotation example.org/rack names.
package main

import (
	"context"
	"os"
	"strings"

	"sidecar-shim.example/hook"
)

const annotation = "example.org/rack"

// checkRack runs on the node, for every VM that starts there. Names of nodes begin with the rack's.
func checkRack(_ context.Context, vmi hook.VMI, node string) error {
	rack, found := vmi.Annotation(annotation)
	if found && !strings.HasPrefix(node, rack+"-") {
		// The VM's owner reads this text in the VM's events.
		return hook.Refusef("annotation %s: node %s is not in rack %s", annotation, node, rack)
	}
	return nil
}

func main() {
	worker := hook.Worker{Name: "@NAME@", Version: "0.1.0", Concurrency: 8}
	worker.OnNode(hook.PreVMStart, checkRack)
	os.Exit(worker.Run())
}
