"""Shims under load with failing hooks, and a real Prometheus that scrapes them.

There are no pods here, so Prometheus gets the labels that the PodMonitor would give it from a list of targets.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import grpc
import yaml

from common import ROOT, fail
from grpcio_wire import call, encode

METHOD = "/kubevirt.hooks.plugins.v1alpha1.NodeHookService/ExecuteNodeHook"
DEADLINE = 30  # of all that is not a load

# Without what a user has set for another shim.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_SHIM_")}
ENVIRONMENT["PYTHONPATH"] = str(ROOT / "sdk/python")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(condition, what, seconds=DEADLINE):
    """Waits until `condition` returns something true, and returns it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            fail(f"{what}: not within {seconds} s")
        time.sleep(0.1)
    return found


class Node:
    """A node with a shim, as far as Prometheus sees it, and the calls that its VMs cause."""

    def __init__(self, directory, name, suffix, *options):
        self.name, self.pod, self.port = name, f"memlock-hook-{suffix}", free_port()
        self.socket, self.log = directory / f"{name}.sock", directory / f"{name}.log"
        self.broken = directory / f"{name}.broken"  # see hook.py
        worker = f"{sys.executable} -B {ROOT}/tests/monitoring/hook.py {self.broken}"
        self.command = [
            os.environ["SIDECAR_SHIM"], "--plugin-socket", self.socket, "--mode", "persistent", "--worker", worker,
            "--metrics-listen", f"127.0.0.1:{self.port}", *options,
        ]
        self.shim = None

    def start(self):
        with self.log.open("ab") as log:
            self.shim = subprocess.Popen(self.command, stdout=log, stderr=log, env=ENVIRONMENT)
        wait_for(self.is_served, f"the shim of {self.name} serves (its log: {self.log.read_text()[-2000:]})")

    def is_served(self):
        if self.shim.poll() is not None:
            fail(f"the shim of {self.name} exited: {self.log.read_text()}")
        with contextlib.suppress(OSError):
            return get(f"http://127.0.0.1:{self.port}/healthz")

    def stop(self, number=signal.SIGTERM):
        if self.shim and self.shim.poll() is None:
            self.shim.send_signal(number)
            self.shim.wait(timeout=60)

    def call(self, point, timeout=30, padding=0, **test):
        """One call of a node hook. Its outcome is what the metrics are about."""
        vmi = {"metadata": {"name": "vm", "namespace": "shop"}, "test": test, "padding": " " * padding}
        fields = {1: point, 2: json.dumps(vmi).encode(), 3: encode({1: self.name.encode()})}
        with contextlib.suppress(grpc.RpcError):
            call(str(self.socket), METHOD, fields, timeout)

    def target(self):
        labels = {"job": "memlock-hook", "namespace": "memlock-hook", "pod": self.pod, "node": self.name,
                  "endpoint": "shim-metrics", "container": "shim"}
        return {"targets": [f"127.0.0.1:{self.port}"], "labels": labels}


class Cluster:
    """Five nodes: one that works, and four with the faults that alerts are about."""

    def __init__(self, directory):
        # Of the large calls, three fit. Behind a slow call they wait, and so does one small call; the
        # queue is full then. Small ones come late, so that they do not take the place of a large one.
        budget = ["--memory-budget", "32MiB"]
        self.good = Node(directory, "node-a", "x7k2p", "--max-workers", "4")
        self.busy = Node(directory, "node-b", "b4d9q", "--max-workers", "1", "--queue-limit", "4", *budget)
        self.broken = Node(directory, "node-c", "c81mz")
        self.restarting = Node(directory, "node-d", "d2nt5")
        self.gone = Node(directory, "node-e", "e6wkr")
        self.nodes = [self.good, self.busy, self.broken, self.restarting, self.gone]
        self.end = threading.Event()
        self.threads = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        for node in (self.good, self.busy, self.broken, self.restarting):
            node.start()
        self.broken.broken.touch()
        self.broken.call(b"PreVMStart", does="exit")
        loads = [
            *[self.many_calls] * 2, self.some_failures, self.slow_calls, *[self.more_than_fit] * 2,
            *[self.large_calls] * 3, self.calls_that_cannot_succeed, self.restarts,
        ]
        for load in loads:
            chance = random.Random(len(self.threads))
            self.threads.append(threading.Thread(target=self.keep_on, args=[load, chance], daemon=True))
            self.threads[-1].start()

    def __exit__(self, *_):
        self.end.set()
        for node in self.nodes:
            node.stop(signal.SIGKILL)
        for thread in self.threads:
            thread.join()
        self.restarting.stop(signal.SIGKILL)  # its thread may have started it meanwhile

    def keep_on(self, load, chance):
        while not self.end.is_set():
            load(chance)

    # ---- what the threads do, again and again

    def many_calls(self, chance):
        point = chance.choice([b"PreVMStart", b"PreVMStart", b"PreMigrationTarget"])
        self.good.call(point, seconds=chance.expovariate(100))
        self.end.wait(chance.expovariate(20))

    def some_failures(self, chance):
        does = chance.choice(["exit", "fail", "fail", "refuse", "retry"])
        self.good.call(b"PreVMStart", does=does)
        self.good.call(b"PreBoot")
        self.end.wait(chance.uniform(0.2, 0.6))

    def slow_calls(self, chance):
        self.busy.call(b"PreMigrationTarget", seconds=chance.uniform(10.5, 11))
        self.end.wait(0.1)

    def more_than_fit(self, chance):
        self.busy.call(b"PreVMStart", timeout=20)
        self.end.wait(chance.uniform(1, 2))

    def large_calls(self, chance):
        self.busy.call(b"PreVMStart", timeout=20, padding=5 << 20)
        self.end.wait(chance.uniform(0.1, 0.3))

    def calls_that_cannot_succeed(self, chance):
        self.broken.call(b"PreVMStart")
        self.end.wait(chance.uniform(0.5, 1))

    def restarts(self, chance):
        self.restarting.call(b"PreVMStart")
        if self.end.wait(5):
            return
        self.restarting.stop(signal.SIGKILL)
        if not self.end.is_set():
            self.restarting.start()


def get(url):
    with urllib.request.urlopen(url, timeout=10) as reply:
        return reply.read()


class Prometheus:
    """A Prometheus with our rules, which scrapes each second."""

    def __init__(self, program, directory, rules, targets):
        self.address = f"127.0.0.1:{free_port()}"
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "shims", "static_configs": targets}],
        }
        file, self.log = directory / "prometheus.yaml", directory / "prometheus.log"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        self.command = [program, f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}",
                        f"--web.listen-address={self.address}", "--log.level=warn"]

    def __enter__(self):
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        wait_for(self.is_ready, "Prometheus serves")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=DEADLINE)

    def is_ready(self):
        if self.process.poll() is not None:
            fail(f"Prometheus exited: {self.log.read_text()}")
        with contextlib.suppress(OSError):
            return get(f"http://{self.address}/-/ready")

    def api(self, path, **query):
        reply = json.loads(get(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"))
        return reply["data"]

    def query(self, expression, **more):
        """The series that an expression has now. With `start`, `end` and `step`, over that time."""
        path = "query_range" if more else "query"
        try:
            return self.api(path, query=expression, **more)["result"]
        except urllib.error.HTTPError as error:
            fail(f"Prometheus refuses {expression}: {error.read().decode()}")
