#!/usr/bin/env python3
"""The vector worker of protocol/vectors/README.md."""

import logging
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from kubevirt_hook import InvalidParams, Refused, Worker

hook = Worker("vectors", "1.0.0", cancellable=True, concurrency=int(sys.argv[1]))


def wait():
    while not hook.call.cancelled:
        time.sleep(0.001)


def raises(error):
    raise error


def log(vector):
    level = getattr(logging, vector["level"].upper())
    logging.log(level, "%s", vector["text"], extra=vector.get("fields"))


ACTIONS = {
    "refuse": lambda it: raises(Refused(it["text"], retryable=it.get("retryable", False))),
    "reject": lambda it: raises(InvalidParams(it["text"])),
    "fail": lambda it: raises(RuntimeError(it["text"])),
    "log": log,
    "print": lambda it: print(it["text"]),
}


def follow(vector, answers):
    """Does what `vector` says. `answers` has the actions that return a result."""
    action = vector and vector["do"]
    if action == "wait":
        wait()
        return (
            follow(vector["then"], answers) if "then" in vector else hook.call.raise_if_cancelled()
        )
    return {None: lambda _: None, **ACTIONS, **answers}[action](vector)


def run(vmi, node="none", **answers):
    call = hook.call
    text = f"attempt {call.attempt}, context {call.context or 'none'}, node {node}"
    invocation = {"invocation": lambda _: raises(Refused(text))}
    return follow(vmi.get("vector"), {**invocation, **answers})


@hook.on_define_domain
def on_define_domain(vmi, domain):
    return run(
        vmi,
        answer=lambda it: it["text"],
        append=lambda it: domain + it["text"],
        grow=lambda it: "x" * it["bytes"],
    )


@hook.pre_cloud_init_iso
def pre_cloud_init_iso(vmi, data):
    return run(vmi, answer=lambda it: {**data, "UserData": it["text"]})


@hook.on_node("preVMStart")
def pre_vm_start(vmi, node_name):
    return run(vmi, node_name)


if __name__ == "__main__":
    hook.run()
