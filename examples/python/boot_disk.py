#!/usr/bin/env python3
"""Boots a VM from the disks in its annotation bootdisk.vm.kubevirt.io/order, for example
"installer,rootdisk": names of spec.domain.devices.disks. Other bootable devices come after them."""
import kubevirt_xml
from kubevirt_hook import Hook, Refused

ANNOTATION = "bootdisk.vm.kubevirt.io/order"
hook = Hook("boot-disk", "1.0.0")

@hook.on_define_domain
def define(vmi, domain):
    order = (vmi["metadata"].get("annotations") or {}).get(ANNOTATION)
    if order is None:
        return None
    document = kubevirt_xml.parse(domain)
    devices = document.root.ensure("devices")
    # The alias of a disk in KubeVirt is "ua-" and the disk's name.
    aliases = {it: disk for disk in devices.children("disk") for it in disk.children("alias")}
    disks = {alias.get("name").removeprefix("ua-"): disk for alias, disk in aliases.items()}
    names = [name.strip() for name in order.split(",")]
    if len(set(names)) < len(names) or not disks.keys() >= set(names):
        raise Refused(f"annotation {ANNOTATION}: name each disk once, out of {', '.join(disks)}")
    for system in document.root.children("os"):
        for boot in system.children("boot"):  # libvirt allows either these or an order
            system.remove(boot)
    boots = {device: boot for device in devices.children() for boot in device.children("boot")}
    first = [disks[name] for name in names]
    rest = sorted(boots.keys() - first, key=lambda it: int(boots[it].get("order")))
    for number, device in enumerate(first + rest, 1):
        device.ensure("boot").set("order", str(number))
    return str(document)

if __name__ == "__main__":
    hook.run()
