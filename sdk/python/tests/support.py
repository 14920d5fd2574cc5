"""Runs programs that use the SDK, as the shim does."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading

SDK = pathlib.Path(__file__).resolve().parents[1]
ROOT = SDK.parents[1]
# Watchdog for programs that hang. No test takes this long.
LIMIT = 60
# `-S` skips the packages that are installed: reading their list takes most of a start.
PYTHON = [sys.executable, "-S"]


def environment(**more):
    """Returns the environment of a hook, without the variables that configure the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "KUBEVIRT"))
    }
    return {**kept, "PYTHONPATH": str(SDK), "PYTHONDONTWRITEBYTECODE": "1", **more}


def run(command, **more):
    """Runs a hook in argv style until it exits."""
    return subprocess.run(
        command, capture_output=True, timeout=LIMIT, env=environment(**more), check=False
    )


def frame(payload):
    return len(payload).to_bytes(4, "big") + payload


class Running:
    """A running worker, killed at the end of the `with` statement or after `LIMIT`."""

    def __init__(self, *command, attachments=True, **more):
        self.process = subprocess.Popen(
            [*PYTHON, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(KUBEVIRT_HOOK_PROTOCOL="1", **more),
        )
        self._timer = threading.Timer(LIMIT, self.process.kill)
        self._timer.start()
        self._id = 1
        self.lines = []  # the params of each `$/log` that `call` has read
        params = {
            "protocolVersions": [1],
            "capabilities": {"attachments": attachments, "cancel": True},
        }
        self.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
        while "result" not in (message := self.receive()):
            self.lines.append(message["params"])
        self.initialized = message["result"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._timer.cancel()
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):  # buffered input that was not read
                stream.close()
        self.process.wait()

    def send(self, message, *attached):
        for payload in (json.dumps(message).encode(), *attached):
            self.process.stdin.write(frame(payload))
        self.process.stdin.flush()

    def start_call(self, vmi, domain="<domain/>", method="onDefineDomain", **params):
        """Sends a call. Returns its id."""
        self._id += 1
        message = {
            "jsonrpc": "2.0",
            "id": self._id,
            "method": method,
            "params": {"vmi": vmi, **params},
        }
        if method == "onDefineDomain" and domain == "":  # a frame cannot be empty
            message["params"]["domain"] = domain
            self.send(message)
        elif method == "onDefineDomain":
            self.send({**message, "attachments": ["domain"]}, domain.encode())
        else:
            self.send(message)
        return self._id

    def receive(self):
        """Reads the next message, with an attached domain put inline. `None` at EOF."""
        payload = self._frame()
        if payload is None:
            return None
        message = json.loads(payload)
        for name in message.pop("attachments", []):
            message["result"][name] = self._frame().decode()
        return message

    def _frame(self):
        header = self.process.stdout.read(4)
        return self.process.stdout.read(int.from_bytes(header, "big")) if header else None

    def call(self, vmi, *arguments, **params):
        """Makes a call. Returns its `result` or `error`."""
        ident = self.start_call(vmi, *arguments, **params)
        while (answer := self.receive()) and answer.get("method") == "$/log":
            self.lines.append(answer["params"])
        assert answer is not None, f"the worker exited: {self.end()}"
        assert answer["id"] == ident, answer
        return answer.get("result", answer.get("error"))

    def wait_for_log(self, text):
        """Reads stderr up to a line with this text."""
        for line in self.process.stderr:
            if text in line.decode():
                return
        raise AssertionError(f"the worker exited without the line {text!r}")

    def end(self):
        """Closes stdin. Returns the exit status, the rest of stdout, and the log."""
        rest, log = self.process.communicate()
        return self.process.returncode, rest, log.decode()
