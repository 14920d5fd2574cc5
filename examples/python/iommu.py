#!/usr/bin/env python3
"""Emulates an IOMMU for guests that isolate devices themselves (nested virtualization, DPDK). The
VM's annotation iommu.vm.kubevirt.io/model enables it. The only model is intel, on machine q35."""
from kubevirt_hook import Refused, Worker

ANNOTATION = "iommu.vm.kubevirt.io/model"
hook = Worker("iommu", "1.0.0")

@hook.edit_domain
def add_iommu(vmi, doc):
    model = vmi.annotation(ANNOTATION)
    if model is None:
        return
    system = doc.find("os/type")
    if model != "intel" or system is None or "q35" not in system.get("machine", ""):
        raise Refused(f"annotation {ANNOTATION}: only intel on machine type q35 works")
    iommu = doc.ensure("devices/iommu")
    iommu.set("model", model)
    driver = iommu.ensure("driver")
    driver.set("intremap", "on")
    driver.set("caching_mode", "on")
    # Interrupt remapping needs QEMU's I/O APIC instead of the kernel's.
    doc.ensure("features/ioapic").set("driver", "qemu")

if __name__ == "__main__":
    hook.run()
