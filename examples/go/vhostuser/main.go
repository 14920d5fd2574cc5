// Adds a disk that a vhost-user back end on the node serves, for VMs with a label that names its
// socket. examples/cases/vhost-user says what it does with each VM.
package main

import (
	"context"
	"log/slog"
	"os"
	"strings"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/xmledit"
)

const label = "vhost-user.example/disk"

func addDisk(ctx context.Context, vmi hook.VMI, doc *xmledit.Document) error {
	name, found := vmi.Label(label)
	if !found {
		return nil
	}
	if vmi.At("spec.domain.memory.hugepages") == nil {
		return hook.Refusef("label %s: a vhost-user disk needs spec.domain.memory.hugepages", label)
	}
	if strategy, _ := vmi.At("spec.evictionStrategy").Text(); strings.HasPrefix(strategy, "LiveMigrate") {
		slog.WarnContext(ctx, "a VM with a vhost-user disk cannot be live-migrated")
	}
	doc.Ensure("memoryBacking/access").SetAttr("mode", "shared")
	for _, cell := range doc.FindAll("cpu/numa/cell") {
		cell.SetAttr("memAccess", "shared")
	}
	socket := "/var/run/vhost-user/" + name + ".sock"
	if doc.Find("devices/disk/source[@path=?]", socket) != nil {
		return nil
	}
	for _, letter := range "abcdefghijklmnopqrstuvwxyz" {
		target := "vd" + string(letter)
		if doc.Find("devices/disk/target[@dev=?]", target) == nil {
			disk := doc.Ensure("devices").Append("disk[@type='vhostuser'][@device='disk']")
			disk.Append("driver[@name='qemu'][@type='raw']")
			disk.Append("source[@type='unix'][@path=?]", socket)
			disk.Append("target[@dev=?][@bus='virtio']", target)
			return nil
		}
	}
	return hook.Refusef("label %s: no name from vda to vdz is free", label)
}

func main() {
	worker := hook.Worker{Name: "vhost-user", Version: "1.0.0"}
	worker.OnDefineDomain(xmledit.Hook(addDisk))
	os.Exit(worker.Run())
}
