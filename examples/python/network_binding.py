#!/usr/bin/env python3
"""A network binding plugin: connects a VM to the pod network with passt, as KubeVirt's own plugin
does. docs/network-binding.md says how to register it. KubeVirt starts one sidecar for each plugin
of a VM, with the plugin's name in NETWORK_BINDING_PLUGIN_NAME."""
import os
import re

from kubevirt_hook import Refused, Worker

PLUGIN = os.environ.get("NETWORK_BINDING_PLUGIN_NAME") or "passt"
# In pods with Istio's sidecar these ports are that sidecar's.
ISTIO, ISTIO_PORTS = "sidecar.istio.io/inject", (
    15000, 15001, 15004, 15006, 15008, 15009, 15020, 15021, 15053, 15090)
LOG_FILE = "/var/run/kubevirt/passt.log"  # KubeVirt copies it into the log of the pod
PCI_ADDRESS = re.compile("([0-9a-fA-F]{4}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})[.]([0-7])")
MEMORY = ("memoryBacking", {}, [("access", {"mode": "shared"}, []), ("source", {"type": "memfd"}, [])])
hook = Worker("network-binding", "1.0.0")

def refused(why):
    return Refused(f"network binding {PLUGIN}: {why}")

def named(items, name):
    return next((item for item in items or [] if item["name"] == name), None)

def bound(vmi):
    """Returns the VM's interface on the pod network, and the name of the pod's interface."""
    spec = vmi["spec"]
    network = next((it for it in spec.get("networks") or [] if it.get("pod") is not None), None)
    if network is None:
        raise refused("it connects to the pod network only, and spec.networks has none (pod: {})")
    name = network["name"]
    interface = named(spec["domain"]["devices"].get("interfaces"), name)
    if interface is None:
        raise refused(f"no interface in spec.domain.devices is named {name}, as the pod network is")
    if (interface.get("binding") or {}).get("name") != PLUGIN:
        raise refused(f"interface {name} is on the pod network and has another binding; no other "
                      f"interface can use this one, so set binding: {{name: {PLUGIN}}} there")
    status = named((vmi.get("status") or {}).get("interfaces"), name) or {}
    if not status.get("podInterfaceName"):
        raise refused(f"the VM's status does not say which interface of the pod is on network {name} "
                      "(podInterfaceName), so KubeVirt is not ready or too old for this binding")
    return interface, status["podInterfaceName"]

def port_forwards(interface, vmi):
    """If the VM names no ports, passt forwards all of them; otherwise those only."""
    ranges = {"tcp": [], "udp": []}
    if (vmi.annotation(ISTIO) or "").lower() == "true":
        ranges["tcp"] = [("range", {"start": str(it), "exclude": "yes"}, []) for it in ISTIO_PORTS]
    for port in interface.get("ports") or []:
        protocol = (port.get("protocol") or "tcp").lower()
        if protocol in ranges:  # KubeVirt accepts no others
            ranges[protocol].append(("range", {"start": str(port["port"])}, []))
    all_ports = not any(ranges.values())
    return [("portForward", {"proto": it}, ranges[it]) for it in ranges if ranges[it] or all_ports]

def contents(interface, pod_interface, vmi):
    """Returns the name, attributes and children of each element in the domain's interface."""
    name, model = interface["name"], interface.get("model") or "virtio"
    if model == "virtio":
        transitional = vmi["spec"]["domain"]["devices"].get("useVirtioTransitional")
        model = "virtio-transitional" if transitional else "virtio-non-transitional"
    elements = [("source", {"dev": pod_interface}, []), ("model", {"type": model}, [])]
    if interface.get("macAddress"):
        elements.append(("mac", {"address": interface["macAddress"]}, []))
    if interface.get("pciAddress"):
        parts = PCI_ADDRESS.fullmatch(interface["pciAddress"])
        if not parts:
            raise refused(f"pciAddress of interface {name} is not an address such as 0000:81:11.1")
        places = zip(("domain", "bus", "slot", "function"), parts.groups())
        address = {place: f"0x{part}" for place, part in places}
        elements.append(("address", {"type": "pci", **address}, []))
    if (interface.get("acpiIndex") or 0) > 0:
        elements.append(("acpi", {"index": str(interface["acpiIndex"])}, []))
    elements.append(("alias", {"name": f"ua-{name}"}, []))
    elements.append(("backend", {"type": "passt", "logFile": LOG_FILE}, []))
    return elements + port_forwards(interface, vmi)

def build(parent, name, attributes, children):
    element = parent.append(name)
    for attribute, value in attributes.items():
        element.set(attribute, value)
    for child in children:
        build(element, *child)

def means(element, name, attributes, children):
    """Whether an element says this already. KubeVirt writes elements in another order."""
    there = element.find_all("*")
    return (element.name == name and len(there) == len(children)
            and all(element.get(it) == value for it, value in attributes.items())
            and all(any(means(it, *child) for it in there) for child in children))

@hook.edit_domain
def connect(vmi, doc):
    interface, pod_interface = bound(vmi)
    wanted = ("interface", {"type": "vhostuser"}, contents(interface, pod_interface, vmi))
    memory = doc.find("memoryBacking")
    if memory is None:
        build(doc.root, *MEMORY)
    elif any(access.get("mode") != "shared" for access in memory.find_all("access")):
        raise refused("passt needs memory with access mode shared, and another hook has set another")
    devices, names = doc.ensure("devices"), (interface["name"], f"ua-{interface['name']}")
    there = next((alias.parent for alias in devices.find_all("interface/alias")
                  if alias.get("name") in names), None)
    if there is None:
        build(devices, *wanted)
    elif not means(there, *wanted):  # it keeps its place: guests name interfaces in this order
        there.text = ""
        there.set("type", "vhostuser")
        for child in wanted[2]:
            build(there, *child)

if __name__ == "__main__":
    hook.run()
