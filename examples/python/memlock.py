#!/usr/bin/env python3
"""Raises how much memory a VM may lock, to what its annotation memlock.example/limit says.

QEMU gets the limit of the virtqemud that starts it. prlimit(2) needs CAP_SYS_RESOURCE."""
import os, re, resource
from pathlib import Path
from kubevirt_hook import Hook, Refused

hook = Hook("memlock", "1.0.0")
PROC = Path(os.environ.get("MEMLOCK_PROC", "/proc"))  # tests have their own
MAX = os.environ.get("MEMLOCK_MAX", "64Gi")

def size(text):
    found = re.fullmatch("([0-9]{1,6})([KMGT]i)", text)
    return int(found[1]) << {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[found[2]] if found else None

@hook.on_node("preVMStart")
@hook.on_node("preMigrationTarget")
def raise_limit(vmi, node):
    text = (vmi["metadata"].get("annotations") or {}).get("memlock.example/limit")
    if text is None:
        return
    if (wanted := size(text)) is None or wanted > size(MAX):
        raise Refused(f"annotation memlock.example/limit: a size such as 4Gi, and at most {MAX}")
    pods = [f"pod{uid}" for uid, at in vmi["status"].get("activePods", {}).items() if at == node]
    found = [int(path.name) for path in PROC.glob("[0-9]*") if is_virtqemud(path, pods)]
    if not found:
        raise Refused(f"no virtqemud of this VM is up on {node} yet: KubeVirt will try again")
    for pid in found:
        limits = resource.prlimit(pid, resource.RLIMIT_MEMLOCK)
        raised = [each if each == resource.RLIM_INFINITY else max(each, wanted) for each in limits]
        resource.prlimit(pid, resource.RLIMIT_MEMLOCK, raised)

def is_virtqemud(path, pods):
    try:
        if (path / "comm").read_text() != "virtqemud\n":
            return False
        cgroup = (path / "cgroup").read_text().replace("_", "-")  # systemd's names have no hyphens
        return any(pod in cgroup for pod in pods)
    except OSError:  # it has ended
        return False

if size(MAX) is None:
    raise SystemExit(f"memlock: MEMLOCK_MAX is not a size such as 64Gi: {MAX}")
hook.run()
