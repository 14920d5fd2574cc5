// Sets the base board manufacturer in the guest's SMBIOS tables, from an annotation of the VM.
package main

import (
	"context"
	"strings"
	"unicode"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/xmledit"
)

const annotation = "smbios.vm.kubevirt.io/baseBoardManufacturer"

func setManufacturer(_ context.Context, vmi hook.VMI, domain []byte) ([]byte, error) {
	metadata, err := vmi.Metadata()
	manufacturer, found := metadata.Annotations[annotation]
	if err != nil || !found {
		return nil, err
	}
	if strings.ContainsFunc(manufacturer, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return nil, hook.Refuse("annotation %s: a character that SMBIOS cannot hold", annotation)
	}
	document, err := xmledit.Parse(domain)
	if err != nil {
		return nil, hook.InvalidParams("domain: %w", err)
	}
	root := document.Root()
	root.Ensure("os").Ensure("smbios").SetAttr("mode", "sysinfo")
	board := root.Ensure("sysinfo", "type", "smbios").Ensure("baseBoard")
	board.Ensure("entry", "name", "manufacturer").SetText(manufacturer)
	return document.Bytes()
}

func main() {
	worker := hook.Worker{Name: "smbios", Version: "1.0.0"}
	worker.OnDefineDomain(setManufacturer)
	worker.Run()
}
