#!/usr/bin/env python3
"""Sets the asset tag of a VM to its annotation example.org/asset-tag."""

from kubevirt_hook import Refused, Worker

ANNOTATION = "example.org/asset-tag"
ENTRY = "sysinfo[@type='smbios']/chassis/entry[@name='asset']"
hook = Worker("@NAME@", "0.1.0")


@hook.edit_domain
def set_asset_tag(vmi, doc):
    """Changes `doc`, the VM's libvirt domain. KubeVirt calls this up to three times for one boot."""
    tag = vmi.annotation(ANNOTATION)
    if tag is None:
        return  # nothing changes
    if not tag.isprintable():
        # The VM's owner reads this text in the VM's events.
        raise Refused(f"annotation {ANNOTATION}: a character that SMBIOS cannot hold")
    doc.ensure(ENTRY).text = tag


if __name__ == "__main__":
    hook.run()
