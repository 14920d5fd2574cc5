#!/usr/bin/env python3
"""Sets the base board manufacturer in the guest's SMBIOS tables, from the VM's annotation
smbios.vm.kubevirt.io/baseBoardManufacturer."""
from kubevirt_hook import Refused, Worker

ANNOTATION = "smbios.vm.kubevirt.io/baseBoardManufacturer"
ENTRY = "sysinfo[@type='smbios']/baseBoard/entry[@name='manufacturer']"
hook = Worker("smbios", "1.0.0")

@hook.edit_domain
def set_manufacturer(vmi, doc):
    manufacturer = vmi.annotation(ANNOTATION)
    if manufacturer is None:
        return
    if not manufacturer.isprintable():
        raise Refused(f"annotation {ANNOTATION}: a character that SMBIOS cannot hold")
    doc.ensure("os/smbios").set("mode", "sysinfo")
    doc.ensure(ENTRY).text = manufacturer

if __name__ == "__main__":
    hook.run()
