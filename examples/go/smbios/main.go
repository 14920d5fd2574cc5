// Sets the base board manufacturer in the guest's SMBIOS tables, from an annotation of the VM.
package main

import (
	"context"
	"os"
	"strings"
	"unicode"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/xmledit"
)

const annotation = "smbios.vm.kubevirt.io/baseBoardManufacturer"

func setManufacturer(_ context.Context, vmi hook.VMI, doc *xmledit.Document) error {
	manufacturer, found := vmi.Annotation(annotation)
	if !found {
		return nil
	}
	if strings.ContainsFunc(manufacturer, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return hook.Refusef("annotation %s: a character that SMBIOS cannot hold", annotation)
	}
	doc.Ensure("os/smbios").SetAttr("mode", "sysinfo")
	doc.Ensure("sysinfo[@type='smbios']/baseBoard/entry[@name='manufacturer']").SetText(manufacturer)
	return nil
}

func main() {
	worker := hook.Worker{Name: "smbios", Version: "1.0.0"}
	worker.OnDefineDomain(xmledit.Hook(setManufacturer))
	os.Exit(worker.Run())
}
