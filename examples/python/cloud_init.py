#!/usr/bin/env python3
"""Sets a guest's time zone through cloud-init, from the VM's annotation
timezone.vm.kubevirt.io/name, for example Europe/Lisbon."""
import re

from kubevirt_hook import Hook, Refused

ANNOTATION = "timezone.vm.kubevirt.io/name"
hook = Hook("cloud-init", "1.0.0")

@hook.pre_cloud_init_iso
def set_timezone(vmi, data):
    name = (vmi["metadata"].get("annotations") or {}).get(ANNOTATION)
    if name is None:
        return None
    if not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", name):
        raise Refused(f"annotation {ANNOTATION}: not the name of a time zone")
    user_data = data.get("UserData") or "#cloud-config\n"
    if not re.match(r"#cloud-config\s*\n", user_data):
        raise Refused(f"annotation {ANNOTATION}: the user data is not #cloud-config")
    # A top-level key is at the start of a line. The rest of the YAML stays unchanged.
    line = f"timezone: {name}"
    changed, found = re.subn(r"^timezone:.*$", line, user_data, flags=re.MULTILINE)
    if not found:
        changed = user_data + ("" if user_data.endswith("\n") else "\n") + line + "\n"
    return None if changed == data.get("UserData") else {**data, "UserData": changed}

if __name__ == "__main__":
    hook.run()
