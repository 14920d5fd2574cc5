#!/usr/bin/env python3
"""Starts a VM only in the rack that its annotation example.org/rack names."""

from kubevirt_hook import Refused, Worker

ANNOTATION = "example.org/rack"
hook = Worker("@NAME@", "0.1.0", concurrency=8)


@hook.on_node("preVMStart")
def check_rack(vmi, node):
    """Runs on the node, for every VM that starts there. Node names begin with the rack's name."""
    rack = vmi.annotation(ANNOTATION)
    if rack is not None and not node.startswith(f"{rack}-"):
        # The VM's owner reads this text in the VM's events.
        raise Refused(f"annotation {ANNOTATION}: node {node} is not in rack {rack}")


if __name__ == "__main__":
    hook.run()
