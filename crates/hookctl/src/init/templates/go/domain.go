// Sets the asset tag of a VM to its annotation example.org/asset-tag.
package main

import (
	"context"
	"os"
	"strings"
	"unicode"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/xmledit"
)

const annotation = "example.org/asset-tag"

// setAssetTag changes the VM's libvirt domain. KubeVirt calls it up to three times for one boot.
func setAssetTag(_ context.Context, vmi hook.VMI, doc *xmledit.Document) error {
	tag, found := vmi.Annotation(annotation)
	if !found {
		return nil // nothing changes
	}
	if strings.ContainsFunc(tag, func(r rune) bool { return !unicode.IsPrint(r) }) {
		// The VM's owner reads this text in the VM's events.
		return hook.Refusef("annotation %s: a character that SMBIOS cannot hold", annotation)
	}
	doc.Ensure("sysinfo[@type='smbios']/chassis/entry[@name='asset']").SetText(tag)
	return nil
}

func main() {
	worker := hook.Worker{Name: "@NAME@", Version: "0.1.0"}
	worker.OnDefineDomain(xmledit.Hook(setAssetTag))
	os.Exit(worker.Run())
}
