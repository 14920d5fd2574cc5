"""A program whose hooks run the code in the VMI, usually code that misbehaves."""

import os
import resource
import subprocess
import sys  # noqa: F401, for the snippets that tests send
import threading
import time  # noqa: F401

from kubevirt_hook import Refused, Worker  # noqa: F401

concurrency = int(os.environ.pop("FIXTURE_CONCURRENCY", "1"))
hook = Worker("fixture", "1", concurrency=concurrency)
together = threading.Barrier(concurrency)
print("printed at import, ", end="")


def reply(vmi, subject):
    """Runs the VMI's Python code, so that each test shows what its hook does."""
    scope = {**globals(), "vmi": vmi, "subject": subject}
    exec(vmi.get("run", "result = None"), scope)
    return scope.get("result")


@hook.on_define_domain
def on_define_domain(vmi, domain):
    return reply(vmi, domain)


@hook.pre_cloud_init_iso
def pre_cloud_init_iso(vmi, data):
    return reply(vmi, data)


@hook.on_node("preVMStart")
def pre_vm_start(vmi, node_name):
    return reply(vmi, node_name)


def echo(*words):
    subprocess.run(["echo", *words], check=True)


def peak():
    """Returns the peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    hook.run()
