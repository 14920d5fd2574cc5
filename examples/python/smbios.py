#!/usr/bin/env python3
"""Sets the base board manufacturer that a guest sees in its SMBIOS tables, to the VM's annotation
smbios.vm.kubevirt.io/baseBoardManufacturer."""
from xml.dom import minidom

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
    document = minidom.parseString(domain)
    root = document.documentElement
    child(child(root, "os"), "smbios").setAttribute("mode", "sysinfo")
    board = child(child(root, "sysinfo", type="smbios"), "baseBoard")
    entry = child(board, "entry", name="manufacturer")
    entry.childNodes[:] = [document.createTextNode(manufacturer)]
    return "\n".join(node.toxml() for node in document.childNodes)

def child(parent, tag, **attributes):
    """The first child with this tag and these attributes; a new one if there is none."""
    for node in parent.childNodes:
        if node.nodeName == tag and attributes.items() <= dict(node.attributes.items()).items():
            return node
    node = parent.appendChild(parent.ownerDocument.createElement(tag))
    for name, value in attributes.items():
        node.setAttribute(name, value)
    return node

if __name__ == "__main__":
    hook.run()
