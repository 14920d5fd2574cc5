#!/usr/bin/env python3
"""The hook in Python that is measured: it sets the manufacturer of the board, as examples/python/smbios.py
does. Worker, argv style and the server in Python (python_server.py) all use this `define`."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../sdk/python"))
import kubevirt_xml
from kubevirt_hook import Hook

ANNOTATION = "smbios.vm.kubevirt.io/baseBoardManufacturer"
hook = Hook("bench", "1.0.0")


@hook.on_define_domain
def define(vmi, domain):
    document = kubevirt_xml.parse(domain)
    document.root.ensure("os").ensure("smbios").set("mode", "sysinfo")
    board = document.root.ensure("sysinfo", type="smbios").ensure("baseBoard")
    board.ensure("entry", name="manufacturer").text = vmi["metadata"]["annotations"][ANNOTATION]
    return str(document)


if __name__ == "__main__":
    hook.run()
