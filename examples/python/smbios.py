#!/usr/bin/env python3
"""Sets the base board manufacturer in the guest's SMBIOS tables, from the VM's annotation
smbios.vm.kubevirt.io/baseBoardManufacturer."""
import kubevirt_xml
from kubevirt_hook import Hook, Refused

ANNOTATION = "smbios.vm.kubevirt.io/baseBoardManufacturer"
hook = Hook("smbios", "1.0.0")

@hook.on_define_domain
def define(vmi, domain):
    manufacturer = (vmi["metadata"].get("annotations") or {}).get(ANNOTATION)
    if manufacturer is None:
        return None
    if not manufacturer.isprintable():
        raise Refused(f"annotation {ANNOTATION}: a character that SMBIOS cannot hold")
    document = kubevirt_xml.parse(domain)
    document.root.ensure("os").ensure("smbios").set("mode", "sysinfo")
    board = document.root.ensure("sysinfo", type="smbios").ensure("baseBoard")
    board.ensure("entry", name="manufacturer").text = manufacturer
    return str(document)

if __name__ == "__main__":
    hook.run()
