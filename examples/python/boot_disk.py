#!/usr/bin/env python3
"""Boots a VM from the disks that its annotation bootdisk.vm.kubevirt.io/order names, such as
"installer,rootdisk": names of spec.domain.devices.disks. What else can boot comes behind."""
from xml.dom import minidom

from kubevirt_hook import Hook, Refused

ANNOTATION = "bootdisk.vm.kubevirt.io/order"
hook = Hook("boot-disk", "1.0.0")

@hook.on_define_domain
def define(vmi, domain):
    order = (vmi["metadata"].get("annotations") or {}).get(ANNOTATION)
    if order is None:
        return None
    document = minidom.parseString(domain)
    [devices] = children(document.documentElement, "devices")
    # KubeVirt puts "ua-" before the name of a disk to make its alias.
    aliases = {it: disk for disk in children(devices, "disk") for it in children(disk, "alias")}
    disks = {alias.getAttribute("name").removeprefix("ua-"): disk for alias, disk in aliases.items()}
    names = [name.strip() for name in order.split(",")]
    if len(set(names)) < len(names) or not disks.keys() >= set(names):
        raise Refused(f"annotation {ANNOTATION}: name each disk once, out of {', '.join(disks)}")
    for system in children(document.documentElement, "os"):
        for boot in children(system, "boot"):  # libvirt takes either these or an order
            system.removeChild(boot)
    boots = {device: boot for device in devices.childNodes for boot in children(device, "boot")}
    first = [disks[name] for name in names]
    rest = sorted(boots.keys() - first, key=lambda it: int(boots[it].getAttribute("order")))
    for number, device in enumerate(first + rest, 1):
        boot = boots.get(device) or device.appendChild(document.createElement("boot"))
        boot.setAttribute("order", str(number))
    return "\n".join(node.toxml() for node in document.childNodes)

def children(parent, tag):
    return [node for node in parent.childNodes if node.nodeName == tag]

if __name__ == "__main__":
    hook.run()
