#!/usr/bin/env python3
"""A hook that computes for some milliseconds and changes nothing, to compare two workers with one."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../sdk/python"))
from kubevirt_hook import Worker

ROUNDS = 200_000
hook = Worker("busy", "1.0.0")


@hook.on_define_domain
def define(vmi, domain):
    left = ROUNDS
    while left:
        left -= 1


if __name__ == "__main__":
    hook.run()
