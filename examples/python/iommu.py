#!/usr/bin/env python3
"""Emulates an IOMMU for guests that isolate devices themselves (nested virtualization, DPDK). The
VM's annotation iommu.vm.kubevirt.io/model asks for it; the one model is intel, on machine q35."""
from xml.dom import minidom

from kubevirt_hook import Hook, Refused

ANNOTATION = "iommu.vm.kubevirt.io/model"
hook = Hook("iommu", "1.0.0")

@hook.on_define_domain
def define(vmi, domain):
    model = (vmi["metadata"].get("annotations") or {}).get(ANNOTATION)
    if model is None:
        return None
    document = minidom.parseString(domain)
    root = document.documentElement
    machine = child(child(root, "os"), "type").getAttribute("machine")
    if model != "intel" or "q35" not in machine:
        raise Refused(f"annotation {ANNOTATION}: intel on machine type q35 is all there is")
    iommu = child(child(root, "devices"), "iommu")
    iommu.setAttribute("model", model)
    driver = child(iommu, "driver")
    driver.setAttribute("intremap", "on")
    driver.setAttribute("caching_mode", "on")
    # Interrupt remapping needs the I/O APIC to be QEMU's, not the kernel's.
    child(child(root, "features"), "ioapic").setAttribute("driver", "qemu")
    return "\n".join(node.toxml() for node in document.childNodes)

def child(parent, tag):
    """The first child with this tag; a new one if there is none."""
    found = [node for node in parent.childNodes if node.nodeName == tag]
    return found[0] if found else parent.appendChild(parent.ownerDocument.createElement(tag))

if __name__ == "__main__":
    hook.run()
