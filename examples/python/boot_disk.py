#!/usr/bin/env python3
"""Boots a VM from the disks in its annotation bootdisk.vm.kubevirt.io/order, for example
"installer,rootdisk": names of spec.domain.devices.disks. Other bootable devices come after them."""
from kubevirt_hook import Refused, Worker

ANNOTATION = "bootdisk.vm.kubevirt.io/order"
hook = Worker("boot-disk", "1.0.0")

@hook.edit_domain
def set_order(vmi, doc):
    order = vmi.annotation(ANNOTATION)
    if order is None:
        return
    # The alias of a disk in KubeVirt is "ua-" and the disk's name.
    aliases = doc.find_all("devices/disk/alias")
    disks = {alias.get("name", "").removeprefix("ua-"): alias.parent for alias in aliases}
    names = [name.strip() for name in order.split(",")]
    if len(set(names)) < len(names) or not disks.keys() >= set(names):
        raise Refused(f"annotation {ANNOTATION}: name each disk once, out of {', '.join(disks)}")
    for boot in doc.find_all("os/boot"):  # libvirt allows either these or an order
        boot.remove()
    boots = {boot.parent: boot for boot in doc.find_all("devices/*/boot")}
    first = [disks[name] for name in names]
    rest = sorted(boots.keys() - first, key=lambda it: int(boots[it].get("order")))
    for number, device in enumerate(first + rest, 1):
        device.ensure("boot").set("order", str(number))

if __name__ == "__main__":
    hook.run()
