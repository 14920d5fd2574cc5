#!/usr/bin/env python3
"""Passes the options in the VM's annotation qemu.vm.kubevirt.io/options to QEMU. They are a JSON
object, for example {"-global": "ICH9-LPC.disable_s3=0"}. Only options in ALLOWED pass: with others,
such as -drive, a user who may annotate a VM could access files of its pod."""
import json

from kubevirt_hook import Refused, Worker

ANNOTATION = "qemu.vm.kubevirt.io/options"
ALLOWED = ("-boot", "-global", "-rtc")
hook = Worker("qemu-arguments", "1.0.0")

@hook.edit_domain
def add_arguments(vmi, doc):
    annotation = vmi.annotation(ANNOTATION)
    if annotation is None:
        return
    try:
        options = list(json.loads(annotation).items())
    except (AttributeError, ValueError):
        raise Refused(f"annotation {ANNOTATION}: not a JSON object") from None
    if not all(name in ALLOWED and isinstance(value, str) for name, value in options):
        raise Refused(f"annotation {ANNOTATION}: allowed are strings for {', '.join(ALLOWED)}")
    line = doc.ensure("qemu:commandline")
    present = [argument.get("value") for argument in line.find_all("qemu:arg")]
    for option in options:
        if option not in zip(present, present[1:]):
            for value in option:
                line.append("qemu:arg[@value=?]", value)

if __name__ == "__main__":
    hook.run()
