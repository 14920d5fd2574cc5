#!/usr/bin/env python3
"""Adds a disk that a vhost-user back end on the node serves, for VMs with the label
vhost-user.example/disk: NAME. Its socket is /var/run/vhost-user/NAME.sock."""
from string import ascii_lowercase

from kubevirt_hook import Refused, Worker

LABEL = "vhost-user.example/disk"
hook = Worker("vhost-user", "1.0.0")

@hook.edit_domain
def add_disk(vmi, doc):
    name = vmi.label(LABEL)
    if name is None:
        return
    if vmi.at("spec.domain.memory.hugepages") is None:
        raise Refused(f"label {LABEL}: a vhost-user disk needs spec.domain.memory.hugepages")
    if vmi.at("spec.evictionStrategy") in ("LiveMigrate", "LiveMigrateIfPossible"):
        hook.log.warning("a VM with a vhost-user disk cannot be live-migrated")
    doc.ensure("memoryBacking/access").set("mode", "shared")
    for cell in doc.find_all("cpu/numa/cell"):
        cell.set("memAccess", "shared")
    socket = f"/var/run/vhost-user/{name}.sock"
    if doc.find("devices/disk/source[@path=?]", socket):
        return
    taken = [target.get("dev") for target in doc.find_all("devices/disk/target")]
    free = [f"vd{letter}" for letter in ascii_lowercase if f"vd{letter}" not in taken]
    if not free:
        raise Refused(f"label {LABEL}: no name from vda to vdz is free")
    disk = doc.ensure("devices").append("disk[@type='vhostuser'][@device='disk']")
    disk.append("driver[@name='qemu'][@type='raw']")
    disk.append("source[@type='unix'][@path=?]", socket)
    disk.append("target[@dev=?][@bus='virtio']", free[0])

if __name__ == "__main__":
    hook.run()
