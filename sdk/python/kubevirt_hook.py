"""Hooks of KubeVirt virtual machines, for sidecar-shim.

    from kubevirt_hook import Hook

    hook = Hook("my-hook", "1.0.0")

    @hook.on_define_domain
    def define(vmi, domain):
        return domain.replace("</domain>", "<!-- seen --></domain>")

    if __name__ == "__main__":
        hook.run()

The program is a worker of `sidecar-shim --mode persistent`, and serves as an argv-style hook
(`onDefineDomain --vmi JSON --domain XML`) as well. README.md has the whole interface on one page.
The file needs nothing but Python 3.9 or later, and may be copied.
"""

from __future__ import annotations

import contextvars
import io
import json
import os
import sys
import time
from _thread import allocate_lock, get_ident  # `threading` only for hooks that use threads

# A hook's start is part of a VM's start, so `typing` and `logging` are not imported before they are
# needed. Type checkers take this name for typing's.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn, TypeVar

    Json = dict[str, Any]
    Documents = dict[str, bytes | bytearray]
    F = TypeVar("F")
    DomainHook = TypeVar("DomainHook", bound=Callable[[Json, str], str | None])
    CloudInitHook = TypeVar("CloudInitHook", bound=Callable[[Json, Json], Json | None])
    NodeHook = TypeVar("NodeHook", bound=Callable[[Json, str], None])

__version__ = "0.1.0"
__all__ = ["Call", "Cancelled", "Hook", "InvalidParams", "Refused"]

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 0xFF_FFFF
# What is read from a pipe, or written to it, at once: a quarter of what it holds. With all of it,
# this process would sleep while the shim is at work, and the shim while this is.
STEP_BYTES = 16 * 1024
MAX_CONCURRENCY = 64
MAX_NAME_BYTES = 63
# The shim cuts lines of the log here, and messages of errors before.
MAX_TEXT = 8192

REFUSED, METHOD_NOT_FOUND, INVALID_PARAMS, FAULT, CANCELLED = -32000, -32601, -32602, -32603, -32800

DOMAIN_ATTACHED = b'{"jsonrpc":"2.0","id":%d,"result":{},"attachments":["domain"]}'
DEFINE, CLOUD_INIT = "onDefineDomain", "preCloudInitIso"
# What hooks take: members of `params`, with the flag for each in argv style, and its type.
MEMBERS: dict[str, tuple[str, str, type]] = {
    "vmi": ("--vmi", "JSON", dict),
    "domain": ("--domain", "XML", str),
    "cloudInitData": ("--cloud-init", "JSON", dict),
    "nodeName": ("--node", "NAME", str),
}


class Refused(Exception):
    """The hook does not want this VM as it is. The message is for the VM's owner: what is wrong,
    and what to do. `retryable` asks for one more try, on another worker."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class InvalidParams(Exception):
    """The hook cannot use what KubeVirt sent. The message says which part, and why."""


class Cancelled(Exception):
    """Nobody waits for this call any more."""


class Call:
    """What a hook is told of its call, beside the documents: `hook.call`, while it runs."""

    hook: str
    """The name by which it is called, such as `onDefineDomain`."""
    id: int | None
    """The call's number in this process. `None` in argv style."""
    attempt: int
    """Which try this is, from 1."""
    context: str | None
    """`Boot`, `MigrationSource` or `MigrationTarget`, where KubeVirt says so."""

    def __init__(self, hook: str, ident: Any, invocation: Any) -> None:
        said = invocation if isinstance(invocation, dict) else {}
        attempt, context, left = said.get("attempt"), said.get("context"), said.get("deadlineMs")
        self.hook, self.id = hook, ident if isinstance(ident, int) else None
        self.attempt = attempt if isinstance(attempt, int) else 1
        self.context = context if isinstance(context, str) else None
        self._deadline = time.monotonic() + left / 1000 if isinstance(left, (int, float)) else None
        self._cancelled = False

    def remaining(self) -> float | None:
        """Seconds until the shim answers in the hook's place, at least 0. `None` in argv style."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._cancelled or self.remaining() == 0.0

    def check(self) -> None:
        """Raises `Cancelled` if nobody waits for the answer any more. For hooks that take long."""
        if self.cancelled:
            raise Cancelled


_running: contextvars.ContextVar[Call] = contextvars.ContextVar("kubevirt_hook.call")


class Hook:
    """The hooks of one program. `name` and `version` are for people.

    With a `concurrency` above 1, as many calls run at once, each in a thread. With `cancel`, hooks
    run in a thread too, and the shim says when nobody waits for a call any more: see `Call.check`.
    Otherwise they run in the main thread, one after the other.
    """

    def __init__(
        self, name: str, version: str = "", *, concurrency: int = 1, cancel: bool = False
    ) -> None:
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise ValueError(f"concurrency has to be from 1 to {MAX_CONCURRENCY}")
        self.name, self.version = name, version
        self.concurrency, self.cancel = concurrency, cancel
        self._functions: dict[str, tuple[str, Any]] = {}
        self._log_handler: Callable[[], logging.Handler] | None = None

    def on_define_domain(self, function: DomainHook) -> DomainHook:
        """Registers `function(vmi, domain)`. It returns the new libvirt document, a `str`, or
        `None` to change nothing."""
        return self._register(DEFINE, "domain", function)

    def pre_cloud_init_iso(self, function: CloudInitHook) -> CloudInitHook:
        """Registers `function(vmi, data)`. It returns the new cloud-init data, a `dict` with
        KubeVirt's member names (`UserData`, …), or `None` to change nothing."""
        return self._register(CLOUD_INIT, "cloudInitData", function)

    def on_node(self, name: str) -> Callable[[NodeHook], NodeHook]:
        """Registers `function(vmi, node_name)` for the node hook of this name, such as
        `preVMStart`. It returns nothing."""
        plain = (
            name.isascii() and name.isalnum() and name[0].islower() and len(name) <= MAX_NAME_BYTES
        )
        if not plain or name in ("initialize", DEFINE, CLOUD_INIT):
            raise ValueError(f"not the name of a node hook: {name!r}")
        return lambda function: self._register(name, "nodeName", function)

    def _register(self, name: str, member: str, function: F) -> F:
        if name in self._functions:
            raise ValueError(f"two functions for {name}")
        self._functions[name] = (member, function)
        return function

    @property
    def call(self) -> Call:
        """The call that the running hook has to answer. A `LookupError` anywhere else, and in
        threads that the hook started."""
        return _running.get()

    @property
    def log(self) -> logging.Logger:
        """A logger of this hook's name. It leads to the shim's log, as every other logger does."""
        import logging

        self._connect_logging()
        return logging.getLogger(self.name)

    def run(self) -> NoReturn:
        """Serves until the shim says stop; or, in argv style, answers the one call on the command
        line. Then it ends the program."""
        if not self._functions:
            sys.exit(f"{self.name}: no hooks are registered")
        # Removed, so that no program that is started from here takes itself for a worker.
        worker = os.environ.pop("KUBEVIRT_HOOK_PROTOCOL", None) is not None
        sys.exit(_Worker(self).serve() if worker else _run_once(self, sys.argv))

    def _connect_logging(self) -> None:
        """Leads the root logger to the shim, unless the program has set it up by itself."""
        logging = sys.modules.get("logging")
        if logging is None or self._log_handler is None:
            return
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(self._log_handler())
            if root.level == logging.WARNING:  # the level that it has from the start
                root.setLevel(logging.INFO)

    def _invoke(self, call: Call, vmi: Json, subject: Any) -> Any:
        """What the hook makes of its subject; `None` where that stays as it is."""
        member, function = self._functions[call.hook]
        self._connect_logging()  # an earlier call may have imported it
        before = _running.set(call)
        try:
            result = function(vmi, subject)
        finally:
            _running.reset(before)
        allowed = type(None) if member == "nodeName" else MEMBERS[member][2]
        if result is not None and not isinstance(result, allowed):
            wanted = "None" if member == "nodeName" else f"a {allowed.__name__} or None"
            raise TypeError(f"{call.hook} has to return {wanted}, not a {type(result).__name__}")
        return None if member == "domain" and result == subject else result


# ---- documents and JSON ----


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _json_bytes(value: Any) -> bytes:
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can express
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _result_bytes(result: Any) -> bytes:
    return result.encode() if isinstance(result, str) else _json_bytes(result)


def _plain(text: str) -> str:
    """Text for a message that anybody can read."""
    return text[:MAX_TEXT].encode(errors="backslashreplace").decode()


def _document(member: str, value: Any) -> Any:
    """A document as a hook takes it, from JSON, or from bytes that stand for a member of it."""
    wanted = MEMBERS[member][2]
    if isinstance(value, (bytes, bytearray)):
        try:
            value = value.decode()
            value = value if wanted is str else _decode(value)
        except UnicodeDecodeError:
            raise InvalidParams(f"{member} is not UTF-8") from None
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, wanted):
        kind = "a string" if wanted is str else "an object"
        raise InvalidParams(f"{member} is missing or not {kind}")
    return value


# ---- descriptors ----


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest[:STEP_BYTES]) :]


def _move_stdout() -> int:
    """A descriptor of its own for standard output. What this process or its children print goes to
    standard error from now on."""
    output = os.dup(1)
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()  # Python 3.9 would write it twice
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    return output


def _show(error: BaseException) -> None:
    """Prints the trace of an exception, from where the hook's own code begins."""
    trace = error.__traceback__
    while trace and trace.tb_next and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)


# ---- argv style: one process for each call ----


class _UsageError(Exception):
    """A command line that names no call of a hook."""


def _run_once(hook: Hook, argv: list[str]) -> int:
    """Answers the call on the command line. Returns the exit status."""
    if argv[1:] in (["-h"], ["--help"]):
        print(_usage(hook))
        return 0
    output = _move_stdout()
    try:
        name, given = _arguments(hook, argv)
    except _UsageError as error:
        print(f"{hook.name}: {error}\n{_usage(hook)}", file=sys.stderr)
        return 2
    hook._log_handler = _stderr_handler
    hook._connect_logging()
    call = Call(name, None, {"context": os.environ.get("KUBEVIRT_HOOK_CONTEXT")})
    member = hook._functions[name][0]
    try:
        vmi, subject = _document("vmi", given["vmi"]), _document(member, given[member])
        result = hook._invoke(call, vmi, subject)
        data = given[member] if result is None else _result_bytes(result)
    except (Refused, InvalidParams, Cancelled) as error:
        print(f"{hook.name}: {_plain(str(error) or 'the call was cancelled')}", file=sys.stderr)
        return 1
    except (Exception, SystemExit) as error:
        _show(error)
        return 1
    if member != "nodeName":  # of a node hook the exit status is the answer
        _write_all(output, data)
    return 0


def _arguments(hook: Hook, argv: list[str]) -> tuple[str, dict[str, bytes]]:
    """The hook that is called, and its documents' own bytes, whatever the locale made of them."""
    members = {flag: member for member, (flag, _, _) in MEMBERS.items()}
    given: dict[str, bytes] = {}
    for at in range(1, len(argv), 2):
        member = members.get(argv[at])
        if member is None:  # it may be a document, so it is not repeated
            raise _UsageError(f"argument {at} is none of {', '.join(members)}")
        if member in given or at + 1 == len(argv):
            raise _UsageError(f"{argv[at]} {'comes twice' if member in given else 'has no value'}")
        given[member] = os.fsencode(argv[at + 1])
    name = os.path.basename(argv[0])
    if name not in hook._functions and name not in (DEFINE, CLOUD_INIT):
        if "nodeName" in given:
            raise _UsageError(
                "--node does not say which hook: start it by the hook's name, by a link to it"
            )
        name = CLOUD_INIT if "cloudInitData" in given else DEFINE
    if name not in hook._functions:
        raise _UsageError(f"{name} is not one of its hooks")
    member = hook._functions[name][0]
    if given.keys() != {"vmi", member}:
        raise _UsageError(f"{name} takes {_flags(member)}")
    return name, given


def _flags(member: str) -> str:
    return " ".join(f"{flag} {value}" for flag, value, _ in (MEMBERS["vmi"], MEMBERS[member]))


def _usage(hook: Hook) -> str:
    lines = [f"{name} {_flags(member)}" for name, (member, _) in sorted(hook._functions.items())]
    lines.append("(as a worker it is started by sidecar-shim --mode persistent)")
    return "usage: " + "\n       ".join(lines)


# ---- logging ----


def _stderr_handler() -> logging.Handler:
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    return handler


def _shim_handler(channel: _Channel) -> logging.Handler:
    import logging

    names = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))

    class ShimHandler(logging.Handler):
        """Sends records to the shim, each with the call that it belongs to."""

        def emit(self, record: logging.LogRecord) -> None:
            try:
                text = _plain(self.format(record))
                if channel.forked or channel.interrupted:
                    print(text, file=sys.stderr)
                    return
                levels = (name for number, name in names if record.levelno >= number)
                call = _running.get(None)
                said = {"level": next(levels, "debug"), "message": text}
                params = {**said, "id": call.id} if call else said
                channel.write(_frames({"method": "$/log", "params": params}))
            except Exception:
                self.handleError(record)

    return ShimHandler()


# ---- the worker ----


class _ProtocolError(Exception):
    """Input that cannot be read. There is no way back into step."""


class _NoCommonVersion(Exception):
    """The shim speaks other versions of the protocol."""


class _Channel:
    """Messages from and to the shim.

    Nothing but frames may leave by the descriptor that the shim reads, and nobody else may read
    what the shim writes. So both move to where no other code, and no child, has them.
    """

    def __init__(self) -> None:
        self._stream = io.BufferedReader(io.FileIO(os.dup(0)), STEP_BYTES)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        self._output = _move_stdout()
        self._process = os.getpid()
        self._lock = allocate_lock()
        self._writer: int | None = None  # the thread that has the lock

    @property
    def forked(self) -> bool:
        """Whether this is a child that a hook has forked. It has no part in the conversation."""
        return os.getpid() != self._process

    @property
    def interrupted(self) -> bool:
        """Whether this runs in the midst of a write of this thread, as handlers of signals may."""
        return self._writer == get_ident()

    def messages(self) -> Iterator[tuple[Json, Documents]]:
        """Every message until end-of-file, with its attachments."""
        while (payload := self._read()) is not None:
            try:
                message = _decode(payload.decode())
            except (ValueError, RecursionError) as error:
                # Of the error's text nothing is shown: it may quote a document.
                kind = type(error).__name__
                raise _ProtocolError(f"a message that is not JSON ({kind})") from None
            del payload
            if not isinstance(message, dict):
                raise _ProtocolError("a message that is not an object")
            yield message, self._attachments(message.get("attachments") or [])
            del message  # it is not kept while this waits for the next

    def _attachments(self, names: Any) -> Documents:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _ProtocolError("attachments that are not an array of names")
        attached: Documents = {}
        for name in names:
            payload = self._read()
            if payload is None:
                raise _ProtocolError("standard input ended before an attachment")
            attached[name] = payload
        return attached

    def _read(self) -> bytes | bytearray | None:
        """The next frame; `None` at end-of-file."""
        header = self._stream.read(4)  # a buffered stream returns less only at end-of-file
        if not header:
            return None
        if len(header) < 4:
            raise _ProtocolError("standard input ended inside the length of a frame")
        length = int.from_bytes(header, "big")
        if not 1 <= length <= MAX_FRAME_BYTES:
            raise _ProtocolError(f"not the length of a frame: {header.hex(' ')}")
        if length <= STEP_BYTES:
            payload: bytes | bytearray = self._stream.read(length)
            complete = len(payload) == length
        else:
            payload = bytearray(length)
            view = memoryview(payload)
            steps = (view[start : start + STEP_BYTES] for start in range(0, length, STEP_BYTES))
            complete = all(self._stream.readinto(step) == len(step) for step in steps)
        if not complete:
            raise _ProtocolError("standard input ended inside a frame")
        return payload

    def write(self, frames: list[bytes]) -> None:
        """Sends one message, whole."""
        if self.forked:
            raise OSError("a child process came back from a hook")
        parts = [part for it in frames for part in (len(it).to_bytes(4, "big"), it)]
        # A long document is not copied.
        last = parts.pop() if len(parts[-1]) > STEP_BYTES else b""
        with self._lock:
            self._writer = get_ident()
            try:
                _write_all(self._output, b"".join(parts))
                _write_all(self._output, last)
            finally:
                self._writer = None


def _frames(message: Json, *attached: bytes) -> list[bytes]:
    return _fitting([_json_bytes({"jsonrpc": "2.0", **message}), *attached])


def _fitting(frames: list[bytes]) -> list[bytes]:
    if max(map(len, frames)) > MAX_FRAME_BYTES:
        raise Refused("the result does not fit a frame")
    return frames


def _error(error: BaseException) -> Json:
    """An exception in the shim's terms."""
    if isinstance(error, Refused):
        code, message = REFUSED, str(error)
        data: Json = {"retryable": True} if error.retryable else {}
    elif isinstance(error, InvalidParams):
        code, message, data = INVALID_PARAMS, str(error), {}
    elif isinstance(error, _NoCommonVersion):
        code, message = INVALID_PARAMS, "no common protocol version"
        data = {"protocolVersions": [PROTOCOL_VERSION]}
    elif isinstance(error, Cancelled):
        code, message, data = CANCELLED, "the call was cancelled", {}
    else:
        # Nobody wrote its text for the VM's owner, and it may quote a document.
        _show(error)
        code, message, data = FAULT, "a fault in the hook's code; its log has the trace", {}
    return {"code": code, "message": _plain(message), **({"data": data} if data else {})}


class _Worker:
    """Takes requests, has hooks run, sends answers."""

    def __init__(self, hook: Hook) -> None:
        self._hook, self._channel = hook, _Channel()
        self._attach = False
        self._open: dict[int | None, Call] = {}  # calls that have no answer yet
        threaded = hook.cancel or hook.concurrency > 1
        self._threads = _Threads(hook.concurrency) if threaded else None
        hook._log_handler = lambda: _shim_handler(self._channel)
        hook._connect_logging()

    def serve(self) -> int:
        """Answers until end-of-file. Returns the exit status."""
        try:
            for message, attached in self._channel.messages():
                self._take(message, attached)
                del message, attached
            if self._threads:
                self._threads.finish()
        except (_ProtocolError, OSError) as error:
            print(f"{self._hook.name}: {error}", file=sys.stderr)
            return 1
        return 0

    def _take(self, message: Json, attached: Documents) -> None:
        method, params, ident = message.get("method"), message.get("params"), message.get("id")
        if not isinstance(method, str) or "id" not in message:
            if method == "$/cancelRequest" and isinstance(params, dict):
                self._cancel(params.get("id"))
        elif method == "initialize":
            self._answer(ident, lambda: [self._initialize(params)])
        elif method not in self._hook._functions:
            error = {"code": METHOD_NOT_FOUND, "message": "unknown method"}
            self._channel.write(_frames({"id": ident, "error": error}))
        else:
            invocation = params.get("invocation") if isinstance(params, dict) else None
            call = Call(method, ident, invocation)
            self._open[call.id] = call
            if self._threads:
                self._threads.submit(self._call, ident, call, params, attached)
            else:
                self._call(ident, call, params, attached)

    def _cancel(self, ident: Any) -> None:
        call = self._open.get(ident) if isinstance(ident, int) else None
        if call:
            call._cancelled = True

    def _initialize(self, params: Any) -> Json:
        said = params if isinstance(params, dict) else {}
        if PROTOCOL_VERSION not in (said.get("protocolVersions") or []):
            raise _NoCommonVersion
        shim = said.get("capabilities") or {}
        self._attach = shim.get("attachments") is True
        hook = self._hook
        return {
            "protocolVersion": PROTOCOL_VERSION,
            "worker": {"name": hook.name, "version": hook.version},
            "hooks": sorted(hook._functions),
            "capabilities": {
                "attachments": True,
                "cancel": hook.cancel,
                "concurrency": hook.concurrency,
            },
        }

    def _call(self, ident: Any, call: Call, params: Any, attached: Documents) -> None:
        self._answer(ident, lambda: self._run(call, params, attached), call)

    def _run(self, call: Call, params: Any, attached: Documents) -> list[Any]:
        """The result of a call, and behind it what is attached."""
        if call._cancelled:
            raise Cancelled
        if not isinstance(params, dict):
            raise InvalidParams("params is missing or not an object")
        member = self._hook._functions[call.hook][0]
        given = {**params, **attached}
        attached.clear()  # no document is kept twice
        vmi = _document("vmi", given.pop("vmi", None))
        subject = _document(member, given.pop(member, None))
        result = self._hook._invoke(call, vmi, subject)
        if result is None:
            return [{} if member == "nodeName" else {"unchanged": True}]
        if member == "domain" and self._attach and result:
            return [{}, result.encode()]
        return [{member: result}]

    def _answer(self, ident: Any, work: Callable[[], list[Any]], call: Call | None = None) -> None:
        """Sends the one answer to a request: what comes of the work, or why nothing does."""
        try:
            result, *attached = work()
            if call and call._cancelled:
                raise Cancelled
            if not attached:
                frames = _frames({"id": ident, "result": result})
            elif type(ident) is int:  # the usual answer, ready-made: an encoder takes a while
                frames = _fitting([DOMAIN_ATTACHED % ident, *attached])
            else:
                answer = {"id": ident, "result": {}, "attachments": ["domain"]}
                frames = _frames(answer, *attached)
        except (Exception, SystemExit) as error:
            answer = _error(Cancelled() if call and call._cancelled else error)
            frames = _frames({"id": ident, "error": answer})
        if call:
            self._open.pop(call.id, None)
        self._channel.write(frames)


class _Threads:
    """Threads that run hooks while the main thread goes on reading."""

    def __init__(self, limit: int) -> None:
        import queue
        import threading

        # The shim never has more calls open than this, so it is never kept waiting.
        self._jobs: queue.Queue[tuple[Any, ...]] = queue.Queue(MAX_CONCURRENCY)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(limit)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        self._jobs.put((function, *arguments))

    def _work(self) -> None:
        while job := self._jobs.get():
            try:
                job[0](*job[1:])
            except BaseException as error:  # above all: the shim is gone
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            del job  # it is not kept while this waits for the next

    def finish(self) -> None:
        """Waits for what was begun."""
        for _ in self._threads:
            self._jobs.put(())
        for thread in self._threads:
            thread.join()
