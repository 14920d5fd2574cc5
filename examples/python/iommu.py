#!/usr/bin/env python3
"""Emulates an IOMMU for guests that isolate devices themselves (nested virtualization, DPDK). The
VM's annotation iommu.vm.kubevirt.io/model enables it. The only model is intel, on machine q35."""
import kubevirt_xml
from kubevirt_hook import Hook, Refused

ANNOTATION = "iommu.vm.kubevirt.io/model"
hook = Hook("iommu", "1.0.0")

@hook.on_define_domain
def define(vmi, domain):
    model = (vmi["metadata"].get("annotations") or {}).get(ANNOTATION)
    if model is None:
        return None
    document = kubevirt_xml.parse(domain)
    root = document.root
    machine = root.ensure("os").ensure("type").get("machine") or ""
    if model != "intel" or "q35" not in machine:
        raise Refused(f"annotation {ANNOTATION}: only intel on machine type q35 works")
    iommu = root.ensure("devices").ensure("iommu")
    iommu.set("model", model)
    driver = iommu.ensure("driver")
    driver.set("intremap", "on")
    driver.set("caching_mode", "on")
    # Interrupt remapping needs QEMU's I/O APIC instead of the kernel's.
    root.ensure("features").ensure("ioapic").set("driver", "qemu")
    return str(document)

if __name__ == "__main__":
    hook.run()
