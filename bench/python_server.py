"""A hook as a gRPC server, without a shim: what a sidecar in Python is today.

    python_server.py SOCKET HOOK

HOOK is the file of the example hook; its function `set_manufacturer` makes the same edit here. The modules
that `grpc_tools.protoc` generates from proto/ are on PYTHONPATH.
"""

import importlib.util
import json
import os
import signal
import sys
import threading
from concurrent import futures

import grpc
import info_pb2
import info_pb2_grpc
import v1alpha3_pb2
import v1alpha3_pb2_grpc

# As in grpcio's own examples.
THREADS = 10

# For calls in flight, of which `Shutdown` is one.
GRACE_S = 1


def load(path):
    # The SDK lies beside the hook.
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location("hook", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Info(info_pb2_grpc.InfoServicer):
    def Info(self, request, context):
        points = [info_pb2.HookPoint(name=name, priority=0) for name in ("OnDefineDomain", "Shutdown")]
        return info_pb2.InfoResult(name="python", versions=["v1alpha3"], hookPoints=points)


class Callbacks(v1alpha3_pb2_grpc.CallbacksServicer):
    def __init__(self, hook, stop):
        # The SDK's modules can be imported once the hook is.
        from kubevirt_hook import VMI
        from kubevirt_xml import parse

        self.hook, self.vmi, self.parse = hook, VMI, parse
        self.stop = stop

    def OnDefineDomain(self, request, context):
        document = self.parse(request.domainXML.decode())
        self.hook.set_manufacturer(self.vmi(json.loads(request.vmi)), document)
        return v1alpha3_pb2.OnDefineDomainResult(domainXML=str(document).encode())

    def Shutdown(self, request, context):
        self.stop.set()
        return v1alpha3_pb2.ShutdownResult()


def main():
    socket, hook = sys.argv[1:]
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=THREADS), options=unlimited)
    info_pb2_grpc.add_InfoServicer_to_server(Info(), server)
    stop = threading.Event()
    v1alpha3_pb2_grpc.add_CallbacksServicer_to_server(Callbacks(load(hook), stop), server)
    server.add_insecure_port(f"unix:{socket}")
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server.start()
    stop.wait()
    server.stop(GRACE_S).wait()


if __name__ == "__main__":
    main()
