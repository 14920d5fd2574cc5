#!/usr/bin/env python3
"""Sets the time zone of a VM's guest to the VM's annotation example.org/timezone."""

import re

from kubevirt_cloud_init import put_part
from kubevirt_hook import Refused, Worker

ANNOTATION = "example.org/timezone"
hook = Worker("@NAME@", "0.1.0")


@hook.pre_cloud_init_iso
def set_timezone(vmi, data):
    """Returns the VM's cloud-init data with a part of user data beside the owner's."""
    name = vmi.annotation(ANNOTATION)
    if name is None:
        return None  # nothing changes
    if not re.fullmatch("[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", name):
        # The VM's owner reads this text in the VM's events.
        raise Refused(f"annotation {ANNOTATION}: not the name of a time zone")
    content = f'#cloud-config\ntimezone: "{name}"\n'
    user_data = put_part(data.get("UserData"), "@PROGRAM@", content)
    return {**data, "UserData": user_data}


if __name__ == "__main__":
    hook.run()
