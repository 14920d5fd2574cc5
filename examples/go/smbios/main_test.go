package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/hooktest"
	"sidecar-shim.example/hook/xmledit"
)

const domain = `<domain type="kvm">
	<os>
		<type arch="x86_64" machine="q35">hvm</type>
	</os>
	<sysinfo type="smbios">
		<baseBoard></baseBoard>
	</sysinfo>
</domain>
`

const changed = `<domain type="kvm">
	<os>
		<type arch="x86_64" machine="q35">hvm</type>
		<smbios mode="sysinfo"></smbios>
	</os>
	<sysinfo type="smbios">
		<baseBoard>
			<entry name="manufacturer">R&amp;D</entry>
		</baseBoard>
	</sysinfo>
</domain>
`

func TestSetManufacturer(t *testing.T) {
	vmi := hook.VMI(`{"metadata": {"annotations": {"` + annotation + `": "R&D"}}}`)
	if got := hooktest.Idempotent(t, xmledit.Hook(setManufacturer), vmi, domain); got != changed {
		t.Errorf("%s", got)
	}
	if got := hooktest.Idempotent(t, xmledit.Hook(setManufacturer), hook.VMI("{}"), domain); got != domain {
		t.Errorf("without an annotation: %s", got)
	}
}

func TestACharacterThatSMBIOSCannotHoldIsRefused(t *testing.T) {
	vmi := hook.VMI(`{"metadata": {"annotations": {"` + annotation + `": "a\nb"}}}`)
	out, err := xmledit.Hook(setManufacturer)(context.Background(), vmi, []byte(domain))
	if out != nil || !errors.Is(err, hook.ErrRefused) || !strings.Contains(err.Error(), annotation) {
		t.Errorf("%s, %v", out, err)
	}
}
