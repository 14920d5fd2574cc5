#!/usr/bin/env python3
"""A node hook that fails on request: the VMI's `test` says how. For tests only."""

import os
import sys
import time

from kubevirt_hook import Refused, Worker

hook = Worker("memlock", "1.0.0")


@hook.on_node("preVMStart")
@hook.on_node("preMigrationTarget")
def act(vmi, node):
    test = vmi.get("test", {})
    time.sleep(test.get("seconds", 0))
    does = test.get("does")
    if does == "exit":
        os._exit(3)
    if does == "fail":
        raise ValueError("this hook has a fault")
    if does == "refuse" or does == "retry" and hook.call.attempt == 1:
        raise Refused("not this VM", retryable=does == "retry")


# From when this file is there, no worker starts.
if os.path.exists(sys.argv.pop(1)):
    sys.exit("no configuration")
hook.run()
