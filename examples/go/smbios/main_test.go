package main

import (
	"context"
	"strings"
	"testing"

	"sidecar-shim.example/hook"
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
		<baseBoard><entry name="manufacturer">R&amp;D</entry></baseBoard>
	</sysinfo>
</domain>
`

func TestSetManufacturer(t *testing.T) {
	vmi := hook.VMI(`{"metadata": {"annotations": {"` + annotation + `": "R&D"}}}`)
	for _, domain := range []string{domain, changed} { // KubeVirt calls again on the result
		got, err := setManufacturer(context.Background(), vmi, []byte(domain))
		if err != nil || string(got) != changed {
			t.Errorf("%s, %v", got, err)
		}
	}
	if got, err := setManufacturer(context.Background(), hook.VMI("{}"), []byte(domain)); got != nil || err != nil {
		t.Errorf("without an annotation: %s, %v", got, err)
	}
}

func TestSetManufacturerSaysWhatIsWrong(t *testing.T) {
	for _, test := range []struct{ vmi, domain, want string }{
		{`{"metadata": {"annotations": {"` + annotation + `": "a\nb"}}}`, domain, annotation},
		{`{"metadata": {"annotations": {"` + annotation + `": 1}}}`, domain, "vmi: "},
		{`{"metadata": {"annotations": {"` + annotation + `": "a"}}}`, "<domain>", "domain: line 1, column 9: "},
	} {
		got, err := setManufacturer(context.Background(), hook.VMI(test.vmi), []byte(test.domain))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %s, %v", test.vmi, got, err)
		}
	}
}
