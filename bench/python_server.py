"""A hook as a gRPC server of its own, without a shim: what a sidecar in Python is today.

    python_server.py SOCKET HOOK

HOOK is the file of the example hook, whose function `define` makes the same edit here. The modules of the wire are those
that `grpc_tools.protoc` makes of proto/, on PYTHONPATH.
"""

import importlib.util
import json
import os
import signal
import sys
from concurrent import futures

import grpc
import info_pb2
import info_pb2_grpc
import v1alpha3_pb2
import v1alpha3_pb2_grpc

# As in grpcio's own examples.
THREADS = 10


def load(path):
    # It finds its SDK beside itself.
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location("hook", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Info(info_pb2_grpc.InfoServicer):
    def Info(self, request, context):
        point = info_pb2.HookPoint(name="OnDefineDomain", priority=0)
        return info_pb2.InfoResult(name="python", versions=["v1alpha3"], hookPoints=[point])


class Callbacks(v1alpha3_pb2_grpc.CallbacksServicer):
    def __init__(self, hook):
        self.hook = hook

    def OnDefineDomain(self, request, context):
        domain = request.domainXML.decode()
        result = self.hook(json.loads(request.vmi), domain)
        return v1alpha3_pb2.OnDefineDomainResult(domainXML=(domain if result is None else result).encode())


def main():
    socket, hook = sys.argv[1:]
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=THREADS), options=unlimited)
    info_pb2_grpc.add_InfoServicer_to_server(Info(), server)
    v1alpha3_pb2_grpc.add_CallbacksServicer_to_server(Callbacks(load(hook).define), server)
    server.add_insecure_port(f"unix:{socket}")
    signal.signal(signal.SIGTERM, lambda *_: server.stop(None))
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
