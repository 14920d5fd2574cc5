#!/usr/bin/env python3
"""Sets a guest's time zone through cloud-init, from the VM's annotation
timezone.vm.kubevirt.io/name, for example Europe/Lisbon. The owner's user data stays as it is."""
import re

from kubevirt_cloud_init import put_part
from kubevirt_hook import Refused, Worker

ANNOTATION = "timezone.vm.kubevirt.io/name"
hook = Worker("cloud-init", "1.0.0")

@hook.pre_cloud_init_iso
def set_timezone(vmi, data):
    name = vmi.annotation(ANNOTATION)
    if name is None:
        return None
    if not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", name):
        raise Refused(f"annotation {ANNOTATION}: not the name of a time zone")
    content = f'#cloud-config\ntimezone: "{name}"\n'
    # In place of a zone that the owner's user data may set.
    user_data = put_part(data.get("UserData"), "timezone.vm.kubevirt.io", content, replace=True)
    return {**data, "UserData": user_data}

if __name__ == "__main__":
    hook.run()
