package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"sidecar-shim.example/hook"
)

const changed = `<domain xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">` +
	`<qemu:commandline><qemu:arg value="-global"></qemu:arg><qemu:arg value="a.b=&quot;c&quot;"></qemu:arg>` +
	`<qemu:arg value="-rtc"></qemu:arg><qemu:arg value="base=utc"></qemu:arg></qemu:commandline></domain>`

func vmi(options string) hook.VMI {
	return hook.VMI(fmt.Sprintf(`{"metadata": {"annotations": {%q: %q}}}`, annotation, options))
}

func TestAddOptions(t *testing.T) {
	options := vmi(`{"-rtc": "base=utc", "-global": "a.b=\"c\""}`)
	for _, domain := range []string{"<domain></domain>", changed} { // KubeVirt calls again on the result
		got, err := addOptions(context.Background(), options, []byte(domain))
		if err != nil || string(got) != changed {
			t.Errorf("%s, %v", got, err)
		}
	}
	if got, err := addOptions(context.Background(), hook.VMI("{}"), []byte("<domain/>")); got != nil || err != nil {
		t.Errorf("without an annotation: %s, %v", got, err)
	}
}

func TestAddOptionsSaysWhatIsWrong(t *testing.T) {
	for options, want := range map[string]string{
		`{"-global": 1}`:                     "not a JSON object of strings",
		`["-global"]`:                        "not a JSON object of strings",
		`{"-rtc": "x", "-drive": "file=/x"}`: `only ["-boot" "-global" "-rtc"] are allowed`,
	} {
		got, err := addOptions(context.Background(), vmi(options), []byte("<domain/>"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v", options, got, err)
		}
	}
}
