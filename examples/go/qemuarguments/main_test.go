package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/hooktest"
	"sidecar-shim.example/hook/xmledit"
)

const changed = `<domain xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">` +
	`<qemu:commandline><qemu:arg value="-global"></qemu:arg><qemu:arg value="a.b=&quot;c&quot;"></qemu:arg>` +
	`<qemu:arg value="-rtc"></qemu:arg><qemu:arg value="base=utc"></qemu:arg></qemu:commandline></domain>`

func vmi(options string) hook.VMI {
	return hook.VMI(fmt.Sprintf(`{"metadata": {"annotations": {%q: %q}}}`, annotation, options))
}

func TestAddOptions(t *testing.T) {
	add := xmledit.Hook(addOptions)
	options := vmi(`{"-rtc": "base=utc", "-global": "a.b=\"c\""}`)
	if got := hooktest.Idempotent(t, add, options, "<domain></domain>"); got != changed {
		t.Error(got)
	}
	if got := hooktest.Idempotent(t, add, hook.VMI("{}"), "<domain/>"); got != "<domain/>" {
		t.Errorf("without an annotation: %s", got)
	}
}

func TestAddOptionsSaysWhatIsWrong(t *testing.T) {
	for options, want := range map[string]string{
		`{"-global": 1}`:                     "not a JSON object of strings",
		`["-global"]`:                        "not a JSON object of strings",
		`{"-rtc": "x", "-drive": "file=/x"}`: `only ["-boot" "-global" "-rtc"] are allowed`,
	} {
		got, err := xmledit.Hook(addOptions)(context.Background(), vmi(options), []byte("<domain/>"))
		if got != nil || !errors.Is(err, hook.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v", options, got, err)
		}
	}
}
