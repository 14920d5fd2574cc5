#!/usr/bin/env python3
"""Passes the options in the VM's annotation qemu.vm.kubevirt.io/options to QEMU. They are a JSON
object, for example {"-global": "ICH9-LPC.disable_s3=0"}. Only options in ALLOWED pass: with others,
such as -drive, a user who may annotate a VM could access files of its pod."""
import json

import kubevirt_xml
from kubevirt_hook import Hook, Refused

ANNOTATION = "qemu.vm.kubevirt.io/options"
ALLOWED = ("-boot", "-global", "-rtc")
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
hook = Hook("qemu-arguments", "1.0.0")

@hook.on_define_domain
def define(vmi, domain):
    annotation = (vmi["metadata"].get("annotations") or {}).get(ANNOTATION)
    if annotation is None:
        return None
    try:
        options = list(json.loads(annotation).items())
    except (AttributeError, ValueError):
        raise Refused(f"annotation {ANNOTATION}: not a JSON object") from None
    if not all(name in ALLOWED and isinstance(value, str) for name, value in options):
        raise Refused(f"annotation {ANNOTATION}: allowed are strings for {', '.join(ALLOWED)}")
    document = kubevirt_xml.parse(domain)
    line, name = document.root.child("commandline", xmlns=QEMU), "arg"  # from the Plugins API
    if line is None:
        document.root.set("xmlns:qemu", QEMU)
        line, name = document.root.ensure("qemu:commandline"), "qemu:arg"
    present = [argument.get("value") for argument in line.children(name)]
    for option in options:
        if option not in zip(present, present[1:]):
            for value in option:
                line.append(name, value=value)
    return str(document)

if __name__ == "__main__":
    hook.run()
