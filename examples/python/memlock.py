#!/usr/bin/env python3
"""Raises the locked-memory limit of a VM to its annotation memlock.example/limit. It changes the
VM's virtqemud, from which QEMU inherits the limit. prlimit(2) needs CAP_SYS_RESOURCE."""
import os, re, resource
from contextlib import suppress
from pathlib import Path

from kubevirt_hook import Refused, Worker

PROC, MAX = Path(os.environ.get("MEMLOCK_PROC", "/proc")), os.environ.get("MEMLOCK_MAX", "64Gi")
hook = Worker("memlock", "1.0.0")

def size(text):
    found = re.fullmatch("([0-9]{1,6})([KMGT])i", text)
    return int(found[1]) << 10 * "_KMGT".index(found[2]) if found else 0

def is_virtqemud(path, pods):
    with suppress(OSError):  # the process has exited
        cgroup = (path / "cgroup").read_text().replace("_", "-")  # systemd's names have no hyphens
        return (path / "comm").read_text() == "virtqemud\n" and any(pod in cgroup for pod in pods)

@hook.on_node("preVMStart")
@hook.on_node("preMigrationTarget")
def raise_limit(vmi, node):
    if (text := vmi.annotation("memlock.example/limit")) is None:
        return
    if not 0 < size(text) <= size(MAX):
        raise Refused(f"annotation memlock.example/limit: not a size up to {MAX}, such as 4Gi")
    pods = [uid for uid, at in vmi["status"].get("activePods", {}).items() if at == node]
    pids = [int(path.name) for path in PROC.glob("[0-9]*") if is_virtqemud(path, pods)]
    if not pids:
        raise Refused(f"no virtqemud of this VM on {node} yet: KubeVirt will retry")
    for pid in pids:
        limits = resource.prlimit(pid, resource.RLIMIT_MEMLOCK)
        raised = [old if old == resource.RLIM_INFINITY else max(old, size(text)) for old in limits]
        resource.prlimit(pid, resource.RLIMIT_MEMLOCK, raised)

assert size(MAX), f"MEMLOCK_MAX is not a size such as 64Gi: {MAX}"
hook.run()
