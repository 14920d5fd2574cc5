package main

import (
	"errors"
	"testing"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/hooktest"
)

const inRack1 = `{"metadata": {"annotations": {"example.org/rack": "rack1"}}}`

func TestCheckRack(t *testing.T) {
	for name, test := range map[string]struct {
		vmi, node string
		refused   bool
	}{
		"a VM starts in its rack":                   {inRack1, "rack1-node01", false},
		"without the annotation it starts anywhere": {`{"metadata": {}}`, "rack2-node01", false},
		"in another rack it is refused":             {inRack1, "rack10-node01", true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, _ := hooktest.New(t, hooktest.Call{Hook: hook.PreVMStart})
			err := checkRack(ctx, hook.VMI(test.vmi), test.node)
			if errors.Is(err, hook.ErrRefused) != test.refused || (err != nil && !test.refused) {
				t.Errorf("got %v", err)
			}
		})
	}
}
