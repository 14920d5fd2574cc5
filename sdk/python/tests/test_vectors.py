"""Runs the protocol's test vectors against the SDK."""

import io
import json
import subprocess
import sys
import threading
import unittest

from support import LIMIT, PYTHON, ROOT, SDK, environment, frame

sys.path.insert(0, str(SDK))

import kubevirt_hook

VECTORS = ROOT / "protocol" / "vectors"


def vectors(kind):
    found = sorted((VECTORS / kind).glob("*.json"))
    assert len(found) > 10, f"{len(found)} vectors in {kind}"
    return [(path, json.loads(path.read_text(encoding="utf-8"))) for path in found]


class Stream(kubevirt_hook._Channel):
    """The reading half of a channel, over bytes."""

    def __init__(self, data, piece):
        raw = Pieces(data, piece)
        self._stream = io.BufferedReader(raw)


class Pieces(io.RawIOBase):
    """Bytes that arrive in pieces of a fixed size."""

    def __init__(self, data, piece):
        self._data, self._piece = memoryview(data), piece

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self._data[: min(self._piece, len(buffer))]
        buffer[: len(part)] = part
        self._data = self._data[len(part) :]
        return len(part)


class Output:
    """What a worker writes, with the vectors' placeholders for what differs between SDKs."""

    SDK = f'"sdk":{{"name":"python","version":"{kubevirt_hook.__version__}"}}'.encode()

    def __init__(self, pipe, faults):
        self._pipe, self._faults = io.BufferedReader(pipe), faults
        self.read = b""

    def read_frame(self):
        """Reads another frame. Returns whether there was one."""
        header = self._pipe.read(4)
        if not header:
            return False
        length = int.from_bytes(header, "big")
        payload = self._pipe.read(length)
        assert len(payload) == length, payload
        if payload.startswith(b'{"jsonrpc":"2.0","id":1,"result":'):
            assert payload.count(self.SDK) == 1, payload
            payload = payload.replace(self.SDK, b'"sdk":{"name":"SDK","version":"VERSION"}')
        elif self._faults and b'"method":"$/log"' in payload:
            said = json.loads(payload)["params"]
            assert ("vector fault" in said["message"]) == (said["level"] == "debug"), said
            assert "RuntimeError" in said["message"], said
            before, _, rest = payload.partition(b'"message":"')
            payload = before + b'"message":"ANY","id":' + rest.rpartition(b'","id":')[2]
        self.read += frame(payload)
        return True


class Frames(unittest.TestCase):
    def test_a_reader_finds_what_the_vectors_say(self):
        for path, facts in vectors("frames"):
            data = path.with_suffix(".bin").read_bytes()
            for piece in (len(data) + 1, 1):
                with self.subTest(path.stem, piece=piece):
                    self.assertEqual(
                        self.read(Stream(data, piece)), (facts["payloads"], facts["fault"])
                    )

    def read(self, stream):
        found = []
        try:
            while (payload := stream._read()) is not None:
                found.append(shown(payload))
        except kubevirt_hook._ProtocolError as error:
            return found, "torn" if "ended inside" in str(error) else "length"
        return found, None


def shown(payload):
    try:
        return {"text": payload.decode()}
    except UnicodeDecodeError:
        return {"hex": payload.hex(" ")}


class Sessions(unittest.TestCase):
    def test_the_vector_worker_answers_to_the_byte(self):
        for path, facts in vectors("sessions"):
            for piece in (1 << 20, 1):
                with self.subTest(path.stem, piece=piece):
                    self.follow(path, facts, piece)

    def follow(self, path, facts, piece):
        given, wanted = path.with_suffix(".in").read_bytes(), path.with_suffix(".out").read_bytes()
        worker = subprocess.Popen(
            [*PYTHON, SDK / "tests" / "vector_worker.py", str(facts["concurrency"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment(KUBEVIRT_HOOK_PROTOCOL="1"),
        )
        end = threading.Timer(LIMIT, worker.kill)
        end.start()
        written, output = 0, Output(worker.stdout, facts["faults"])
        for step in facts["steps"]:
            for at in range(written, step["write"], piece):
                worker.stdin.write(given[at : min(at + piece, step["write"])])
            written = step["write"]
            while len(output.read) < step["await"] and output.read_frame():
                pass
            self.assertEqual(output.read, wanted[: step["await"]])
        self.assertEqual(written, len(given))
        worker.stdin.close()
        while output.read_frame():
            pass
        worker.stdin = None
        _, log = worker.communicate()
        end.cancel()
        self.assertEqual(output.read, wanted)
        self.assertEqual(worker.returncode == 0, facts["exit"] == "success", log)
        self.assertTrue(facts["exit"] == "success" or log)
        for text in facts["stderr"]:
            self.assertIn(text, log.decode())


if __name__ == "__main__":
    unittest.main()
