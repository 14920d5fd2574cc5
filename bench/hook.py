#!/usr/bin/env python3
"""The hook in Python that is measured: it sets the manufacturer of the board, as examples/python/smbios.py
does, with the quickest XML parser of the standard library. Worker, argv style and the server in Python
(python_server.py) all use this `define`."""
import os
import sys
from xml.etree import ElementTree
from xml.parsers import expat

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../sdk/python"))
from kubevirt_hook import Hook

ANNOTATION = "smbios.vm.kubevirt.io/baseBoardManufacturer"
hook = Hook("bench", "1.0.0")


@hook.on_define_domain
def define(vmi, domain):
    root = parse(domain)
    child(child(root, "os"), "smbios").set("mode", "sysinfo")
    board = child(child(root, "sysinfo", type="smbios"), "baseBoard")
    child(board, "entry", name="manufacturer").text = vmi["metadata"]["annotations"][ANNOTATION]
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def parse(text):
    """ElementTree's own parser would rewrite the prefixes of namespaces; this leaves them alone."""
    tree = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = tree.start, tree.end
    parser.CharacterDataHandler = tree.data
    parser.Parse(text, True)
    return tree.close()


def child(parent, tag, **attributes):
    """The first child with this tag and these attributes; a new one if there is none."""
    for node in parent.iterfind(tag):
        if attributes.items() <= node.attrib.items():
            return node
    return ElementTree.SubElement(parent, tag, attributes)


if __name__ == "__main__":
    hook.run()
