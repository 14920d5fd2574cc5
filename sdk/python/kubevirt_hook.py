"""Hooks of KubeVirt virtual machines, for sidecar-shim.

    from kubevirt_hook import Hook

    hook = Hook("my-hook", "1.0.0")

    @hook.on_define_domain
    def define(vmi, domain):
        return domain.replace("</domain>", "<!-- seen --></domain>")

    if __name__ == "__main__":
        hook.run()

The program is both a worker for `sidecar-shim --mode persistent` and an argv-style hook
(`onDefineDomain --vmi JSON --domain XML`). README.md documents the whole interface on one page.
This file needs only Python 3.9 or later, and may be copied.
"""

from __future__ import annotations

import contextvars
import io
import json
import os
import sys
import time
from _thread import allocate_lock, get_ident  # `threading` only for hooks that use threads

# Starting the hook delays the VM's start, so `typing` and `logging` are imported only on use. Type
# checkers treat this name as typing.TYPE_CHECKING.
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
# Maximum number of bytes per read or write of a pipe: a quarter of its capacity. With larger steps,
# the shim and this process would take turns sleeping instead of working at the same time.
STEP_BYTES = 16 * 1024
MAX_CONCURRENCY = 64
MAX_NAME_BYTES = 63
# The shim truncates log lines at this length, and error messages at half of it.
MAX_TEXT = 8192

REFUSED, METHOD_NOT_FOUND, INVALID_PARAMS, FAULT, CANCELLED = -32000, -32601, -32602, -32603, -32800

DOMAIN_ATTACHED = b'{"jsonrpc":"2.0","id":%d,"result":{},"attachments":["domain"]}'
DEFINE, CLOUD_INIT = "onDefineDomain", "preCloudInitIso"
# Documents of hooks: the field of `params`, then its flag in argv style, placeholder and type.
MEMBERS: dict[str, tuple[str, str, type]] = {
    "vmi": ("--vmi", "JSON", dict),
    "domain": ("--domain", "XML", str),
    "cloudInitData": ("--cloud-init", "JSON", dict),
    "nodeName": ("--node", "NAME", str),
}


class Refused(Exception):
    """The hook refuses this VM. The VM's owner reads the message: say what is wrong and what to do.
    `retryable` asks the shim for one retry, on another worker."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class InvalidParams(Exception):
    """A document that KubeVirt sent is invalid. The message says which one, and why."""


class Cancelled(Exception):
    """The call was cancelled: its caller has gone."""


class Call:
    """Metadata of a call; `hook.call` returns it while the hook runs."""

    hook: str
    """Hook point, such as `onDefineDomain`."""
    id: int | None
    """Number of the call in this process. `None` in argv style."""
    attempt: int
    """Number of the attempt, from 1."""
    context: str | None
    """`Boot`, `MigrationSource` or `MigrationTarget`; `None` if KubeVirt states no context."""

    def __init__(self, hook: str, ident: Any, invocation: Any) -> None:
        said = invocation if isinstance(invocation, dict) else {}
        attempt, context, left = said.get("attempt"), said.get("context"), said.get("deadlineMs")
        self.hook, self.id = hook, ident if isinstance(ident, int) else None
        self.attempt = attempt if isinstance(attempt, int) else 1
        self.context = context if isinstance(context, str) else None
        self._deadline = time.monotonic() + left / 1000 if isinstance(left, (int, float)) else None
        self._cancelled = False

    def remaining(self) -> float | None:
        """Seconds until the shim fails the call, at least 0. `None` in argv style."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether the caller has gone or the deadline has passed."""
        return self._cancelled or self.remaining() == 0.0

    def check(self) -> None:
        """Raises `Cancelled` if the call is `cancelled`. For hooks that take long."""
        if self.cancelled:
            raise Cancelled


_running: contextvars.ContextVar[Call] = contextvars.ContextVar("kubevirt_hook.call")


class Hook:
    """The hooks of one program. The shim logs `name` and `version`.

    With a `concurrency` above 1, up to that many calls run at the same time, each in a thread. With
    `cancel`, hooks run in a thread too, and the shim reports calls whose caller has gone: see
    `Call.check`. Otherwise hooks run in the main thread, one at a time.
    """

    def __init__(
        self, name: str, version: str = "", *, concurrency: int = 1, cancel: bool = False
    ) -> None:
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise ValueError(f"concurrency must be from 1 to {MAX_CONCURRENCY}")
        self.name, self.version = name, version
        self.concurrency, self.cancel = concurrency, cancel
        self._functions: dict[str, tuple[str, Any]] = {}
        self._log_handler: Callable[[], logging.Handler] | None = None

    def on_define_domain(self, function: DomainHook) -> DomainHook:
        """Registers `function(vmi, domain)`. It returns the new libvirt document as a `str`, or
        `None` for no change."""
        return self._register(DEFINE, "domain", function)

    def pre_cloud_init_iso(self, function: CloudInitHook) -> CloudInitHook:
        """Registers `function(vmi, data)`. It returns the new cloud-init data as a `dict` with
        KubeVirt's field names (`UserData`, …), or `None` for no change."""
        return self._register(CLOUD_INIT, "cloudInitData", function)

    def on_node(self, name: str) -> Callable[[NodeHook], NodeHook]:
        """Registers `function(vmi, node_name)` for the node hook of this name, such as
        `preVMStart`. It returns nothing."""
        plain = (
            name.isascii() and name.isalnum() and name[0].islower() and len(name) <= MAX_NAME_BYTES
        )
        if not plain or name in ("initialize", DEFINE, CLOUD_INIT):
            raise ValueError(f"invalid name of a node hook: {name!r}")
        return lambda function: self._register(name, "nodeName", function)

    def _register(self, name: str, member: str, function: F) -> F:
        if name in self._functions:
            raise ValueError(f"the hook {name} is already registered")
        self._functions[name] = (member, function)
        return function

    @property
    def call(self) -> Call:
        """The current call. Raises `LookupError` outside of a hook, and in threads that the hook
        started."""
        return _running.get()

    @property
    def log(self) -> logging.Logger:
        """A logger with this hook's name. Like all other loggers it writes to the shim's log."""
        import logging

        self._connect_logging()
        return logging.getLogger(self.name)

    def run(self) -> NoReturn:
        """Serves calls until the shim closes stdin; in argv style, runs the one call on the command
        line. Then exits."""
        if not self._functions:
            sys.exit(f"{self.name}: no hooks are registered")
        # Removed, so that programs started by a hook do not act as workers.
        worker = os.environ.pop("KUBEVIRT_HOOK_PROTOCOL", None) is not None
        sys.exit(_Worker(self).serve() if worker else _run_once(self, sys.argv))

    def _connect_logging(self) -> None:
        """Connects the root logger to the shim, unless the program has configured it."""
        logging = sys.modules.get("logging")
        if logging is None or self._log_handler is None:
            return
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(self._log_handler())
            if root.level == logging.WARNING:  # the default
                root.setLevel(logging.INFO)

    def _invoke(self, call: Call, vmi: Json, subject: Any) -> Any:
        """Runs the hook. Returns the new document, or `None` for no change."""
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
            raise TypeError(f"{call.hook} must return {wanted}, not a {type(result).__name__}")
        return None if member == "domain" and result == subject else result


# ---- documents and JSON ----


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _outline(text: str) -> str:
    """Returns the JSON text of a message with `null` in place of each object and array in the
    members of its `params`, such as documents. For one that is nested too deeply to be decoded."""
    import re

    kept, depth, end = [], 0, 0
    for token in re.finditer(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', text, re.DOTALL):
        if token[0] in ("{", "["):
            depth += 1
            if depth == 3:
                kept.append(text[end : token.start()] + "null")
        elif token[0] in ("}", "]"):
            if depth == 3:
                end = token.end()
            depth -= 1
    return "".join(kept) + text[end:]


def _json_bytes(value: Any) -> bytes:
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can express only as an escape
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _result_bytes(result: Any) -> bytes:
    return result.encode() if isinstance(result, str) else _json_bytes(result)


def _plain(text: str) -> str:
    """Truncates a text, and escapes lone surrogates."""
    return text[:MAX_TEXT].encode(errors="backslashreplace").decode()


def _document(member: str, value: Any) -> Any:
    """Converts a document, from decoded JSON or from bytes, to the type that hooks expect."""
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
    """Takes over stdout and returns it as a new descriptor. From now on, output of this process and
    its children goes to stderr."""
    output = os.dup(1)
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()  # Python 3.9 would write it twice
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    return output


def _show(error: BaseException) -> None:
    """Prints the traceback of an exception, without this file's own frames at its start."""
    trace = error.__traceback__
    while trace and trace.tb_next and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)


# ---- argv style: one process for each call ----


class _UsageError(Exception):
    """An invalid command line."""


def _run_once(hook: Hook, argv: list[str]) -> int:
    """Runs the call on the command line. Returns the exit status."""
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
    if member != "nodeName":  # a node hook's result is its exit status
        _write_all(output, data)
    return 0


def _arguments(hook: Hook, argv: list[str]) -> tuple[str, dict[str, bytes]]:
    """Reads the hook's name and its documents from the command line. The documents are returned as
    their original bytes, independent of the locale."""
    members = {flag: member for member, (flag, _, _) in MEMBERS.items()}
    given: dict[str, bytes] = {}
    for at in range(1, len(argv), 2):
        member = members.get(argv[at])
        if member is None:  # it may be a document, so the error does not quote it
            raise _UsageError(f"argument {at} is not one of {', '.join(members)}")
        if member in given or at + 1 == len(argv):
            raise _UsageError(
                f"{argv[at]} {'is given twice' if member in given else 'has no value'}"
            )
        given[member] = os.fsencode(argv[at + 1])
    name = os.path.basename(argv[0])
    if name not in hook._functions and name not in (DEFINE, CLOUD_INIT):
        if "nodeName" in given:
            raise _UsageError(
                "--node does not select a hook: start this program through a link named after the"
                " hook"
            )
        name = CLOUD_INIT if "cloudInitData" in given else DEFINE
    if name not in hook._functions:
        raise _UsageError(f"this program has no hook {name}")
    member = hook._functions[name][0]
    if given.keys() != {"vmi", member}:
        raise _UsageError(f"{name} takes {_flags(member)}")
    return name, given


def _flags(member: str) -> str:
    return " ".join(f"{flag} {value}" for flag, value, _ in (MEMBERS["vmi"], MEMBERS[member]))


def _usage(hook: Hook) -> str:
    lines = [f"{name} {_flags(member)}" for name, (member, _) in sorted(hook._functions.items())]
    lines.append("or as a worker of sidecar-shim --mode persistent")
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
        """Sends log records to the shim, with the id of the current call."""

        def emit(self, record: logging.LogRecord) -> None:
            try:
                text = _plain(self.format(record))
                if channel.forked or channel.interrupted:
                    _write_all(2, f"{text}\n".encode())  # sys.stderr may be interrupted as well
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
    """Invalid input. The stream cannot be resynchronized."""


class _NoCommonVersion(Exception):
    """The shim supports no protocol version that this file supports."""


class _Channel:
    """Messages from and to the shim.

    The pipes to the shim must carry only frames, and only this class may read them. So both move
    to descriptors that other code and child processes do not have.
    """

    def __init__(self) -> None:
        self._stream = io.BufferedReader(io.FileIO(os.dup(0)), STEP_BYTES)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        self._output = _move_stdout()
        self._process = os.getpid()
        self._lock = allocate_lock()
        self._writers: set[int] = set()  # the threads that hold the lock, or are about to

    @property
    def forked(self) -> bool:
        """Whether this is a process that a hook has forked. It must not write to the shim."""
        return os.getpid() != self._process

    @property
    def interrupted(self) -> bool:
        """Whether this thread is already writing, or waits for its turn, as it is when a signal
        handler interrupts it. Then the lock must not be taken."""
        return get_ident() in self._writers

    def messages(self) -> Iterator[tuple[Json, Documents]]:
        """Reads messages with their attachments, until EOF."""
        while (payload := self._read()) is not None:
            try:
                text = payload.decode()
                try:
                    message = _decode(text)
                except RecursionError:  # the fault of one document, which is missing now
                    message = _decode(_outline(text))
                del text
            except (ValueError, RecursionError) as error:
                # The error's text is left out: it may quote a document.
                kind = type(error).__name__
                raise _ProtocolError(f"a frame is not valid JSON ({kind})") from None
            del payload
            if not isinstance(message, dict):
                raise _ProtocolError("a message is not a JSON object")
            yield message, self._attachments(message.get("attachments") or [])
            del message  # freed before the next read blocks

    def _attachments(self, names: Any) -> Documents:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _ProtocolError('"attachments" is not an array of names')
        attached: Documents = {}
        for name in names:
            payload = self._read()
            if payload is None:
                raise _ProtocolError("stdin ended before an attachment")
            attached[name] = payload
        return attached

    def _read(self) -> bytes | bytearray | None:
        """Reads the next frame; `None` at EOF."""
        header = self._stream.read(4)  # a buffered stream returns less only at EOF
        if not header:
            return None
        if len(header) < 4:
            raise _ProtocolError("stdin ended inside the length of a frame")
        length = int.from_bytes(header, "big")
        if not 1 <= length <= MAX_FRAME_BYTES:
            raise _ProtocolError(f"invalid frame length: {header.hex(' ')}")
        if length <= STEP_BYTES:
            payload: bytes | bytearray = self._stream.read(length)
            complete = len(payload) == length
        else:
            payload = bytearray(length)
            view = memoryview(payload)
            steps = (view[start : start + STEP_BYTES] for start in range(0, length, STEP_BYTES))
            complete = all(self._stream.readinto(step) == len(step) for step in steps)
        if not complete:
            raise _ProtocolError("stdin ended inside a frame")
        return payload

    def write(self, frames: list[bytes]) -> None:
        """Sends one message. Other threads' messages do not come between its frames."""
        if self.forked:
            raise OSError("a forked child process returned from a hook")
        parts = [part for it in frames for part in (len(it).to_bytes(4, "big"), it)]
        # Avoids copying a long document.
        last = parts.pop() if len(parts[-1]) > STEP_BYTES else b""
        thread = get_ident()
        try:
            # Before the lock is taken, and until it is released: a signal handler may run at any
            # step.
            self._writers.add(thread)
            with self._lock:
                _write_all(self._output, b"".join(parts))
                _write_all(self._output, last)
        finally:
            self._writers.discard(thread)


def _frames(message: Json, *attached: bytes) -> list[bytes]:
    return _fitting([_json_bytes({"jsonrpc": "2.0", **message}), *attached])


def _fitting(frames: list[bytes]) -> list[bytes]:
    if max(map(len, frames)) > MAX_FRAME_BYTES:
        raise Refused("the result does not fit a frame")
    return frames


def _error(error: BaseException) -> Json:
    """Converts an exception to an error of the protocol."""
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
        # The text was not written for the VM's owner and may quote a document.
        _show(error)
        code, message, data = FAULT, "a fault in the hook's code; its log has the trace", {}
    return {"code": code, "message": _plain(message), **({"data": data} if data else {})}


class _Worker:
    """Reads requests, runs hooks and sends responses."""

    def __init__(self, hook: Hook) -> None:
        self._hook, self._channel = hook, _Channel()
        self._attach = False
        self._open: dict[int | None, Call] = {}  # calls in flight
        threaded = hook.cancel or hook.concurrency > 1
        self._threads = _Threads(hook.concurrency) if threaded else None
        hook._log_handler = lambda: _shim_handler(self._channel)
        hook._connect_logging()

    def serve(self) -> int:
        """Serves requests until EOF. Returns the exit status."""
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
        """Runs a call. Returns its result, followed by the attachments."""
        if call._cancelled:
            raise Cancelled
        if not isinstance(params, dict):
            raise InvalidParams("params is missing or not an object")
        member = self._hook._functions[call.hook][0]
        given = {**params, **attached}
        attached.clear()  # frees the document when `given` does
        vmi = _document("vmi", given.pop("vmi", None))
        subject = _document(member, given.pop(member, None))
        result = self._hook._invoke(call, vmi, subject)
        if result is None:
            return [{} if member == "nodeName" else {"unchanged": True}]
        if member == "domain" and self._attach and result:
            return [{}, result.encode()]
        return [{member: result}]

    def _answer(self, ident: Any, work: Callable[[], list[Any]], call: Call | None = None) -> None:
        """Does the work of a request and sends the response: its result, or an error."""
        try:
            result, *attached = work()
            if call and call._cancelled:
                raise Cancelled
            if not attached:
                frames = _frames({"id": ident, "result": result})
            elif type(ident) is int:  # the most common response, without the cost of an encoder
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
    """Threads that run hooks while the main thread reads."""

    def __init__(self, limit: int) -> None:
        import queue
        import threading

        # The shim never has more calls in flight than this, so `put` does not block.
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
            except BaseException as error:  # usually: the shim has exited
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            del job  # freed before the next `get` blocks

    def finish(self) -> None:
        """Waits for the calls in flight."""
        for _ in self._threads:
            self._jobs.put(())
        for thread in self._threads:
            thread.join()
