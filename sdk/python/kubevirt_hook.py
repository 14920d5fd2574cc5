# kubevirt_hook of kubevirt-hook 0.1.0 for Python. May be copied: only edit_domain needs another
# file, kubevirt_xml.py.
"""Hooks of KubeVirt virtual machines, for sidecar-shim.

    from kubevirt_hook import Worker

    hook = Worker("my-hook", "1.0.0")

    @hook.edit_domain
    def set_title(vmi, doc):
        doc.ensure("title").text = f"{vmi.namespace}/{vmi.name}"

    if __name__ == "__main__":
        hook.run()

The program is both a worker for `sidecar-shim --mode persistent` and an argv-style hook
(`onDefineDomain --vmi JSON --domain XML`). README.md documents the whole interface on one page.
This file needs only Python 3.9 or later.
"""

from __future__ import annotations

import atexit
import builtins
import contextvars
import gc
import io
import os
import sys
import time
from _thread import allocate_lock, get_ident  # `threading` only for hooks that use threads

# Set in the environment of workers; "1" in exec mode, if the shim reads levels on stderr.
WORKER_VARIABLE, LEVELS_VARIABLE = "KUBEVIRT_HOOK_PROTOCOL", "SIDECAR_SHIM_STDERR_LEVELS"
IS_OF_SHIM = WORKER_VARIABLE in os.environ or LEVELS_VARIABLE in os.environ

# Starting the hook delays the VM's start. The imports leave no garbage, so nothing is collected
# until the end of this file. Other programs that import a hook, such as tests, see no difference.
COLLECTS = IS_OF_SHIM and gc.isenabled()
if COLLECTS:
    gc.disable()

import json  # noqa: E402  # it takes most of the time

# `typing` and `logging` are imported only on use. Type checkers treat this name as
# typing.TYPE_CHECKING.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, NoReturn, TypeVar

    from kubevirt_xml import Document

    Json = dict[str, Any]
    Documents = dict[str, bytes | bytearray]
    Fields = dict[str, str | int | float | bool]
    # Logs a text with a level of the protocol and fields.
    Sink = Callable[[str, str, Fields], None]
    E = TypeVar("E", bound=Exception)
    F = TypeVar("F")
    DomainHook = TypeVar("DomainHook", bound=Callable[["VMI", str], str | bytes | Document | None])
    EditHook = TypeVar("EditHook", bound=Callable[["VMI", Document], None])
    CloudInitHook = TypeVar("CloudInitHook", bound=Callable[["VMI", Json], Json | None])
    NodeHook = TypeVar("NodeHook", bound=Callable[["VMI", str], None])

__version__ = "0.1.0"
__all__ = ["VMI", "Call", "Cancelled", "HookError", "InvalidParams", "Refused", "Worker"]

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 0xFF_FFFF
# Maximum number of bytes per read or write of a pipe: a quarter of its capacity. With larger steps,
# the shim and this process would take turns sleeping instead of working at the same time.
STEP_BYTES = 16 * 1024
MAX_CONCURRENCY = 64
MAX_NAME_BYTES = 63
# The shim truncates log lines at this length, and error messages at half of it.
MAX_TEXT = 8192
# Maximum number of fields that the shim takes of a log line, and maximum length of each.
MAX_FIELDS, MAX_NAME, MAX_FIELD = 32, 64, 1024
# Integers that each reader of JSON keeps exact. Of larger ones the log gets the text.
MAX_INTEGER = 2**63 - 1
# Maximum number of records that are kept until `run` knows where they go.
MAX_EARLY = 1000
# Maximum number of frames of a trace that are logged: of the first ones, and of the last ones.
FIRST_FRAMES, LAST_FRAMES = 4, 24
# Maximum number of exceptions that are followed from one to its cause.
MAX_CAUSES = 16
# Flags of the code of a coroutine, generator or asynchronous generator.
UNFINISHED_FLAGS = 0x80 | 0x20 | 0x200
# Maximum number of callables, such as partial functions, that are followed to their function.
MAX_WRAPPERS = 16

# Levels of the protocol, with the numbers of `logging`, and those of syslog for lines on stderr.
LEVELS = {"debug": (10, 7), "info": (20, 6), "warning": (30, 4), "error": (40, 3)}

REFUSED, METHOD_NOT_FOUND, INVALID_PARAMS, FAULT, CANCELLED = -32000, -32601, -32602, -32603, -32800

DOMAIN_ATTACHED = b'{"jsonrpc":"2.0","id":%d,"result":{},"attachments":["domain"]}'
DEFINE, CLOUD_INIT = "onDefineDomain", "preCloudInitIso"
FORKED = "a forked child process returned from a hook"
# Documents of hooks: the field of `params`, then its flag in argv style, placeholder and type.
MEMBERS: dict[str, tuple[str, str, type]] = {
    "vmi": ("--vmi", "JSON", dict),
    "domain": ("--domain", "XML", str),
    "cloudInitData": ("--cloud-init", "JSON", dict),
    "nodeName": ("--node", "NAME", str),
}


class HookError(Exception):
    """Base class of what a hook raises on purpose."""


class Refused(HookError):
    """The hook refuses this VM. The VM's owner reads the message: say what is wrong and what to do.
    `retryable` asks the shim for one retry, on another worker."""

    retryable = False  # of a subclass that does not call `__init__`

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class InvalidParams(HookError):
    """A document that KubeVirt sent is invalid. The message says which one, and why."""


class Cancelled(HookError):
    """The call was cancelled: its caller has gone."""


class _WrongResult(TypeError):
    """A hook has returned what it must not."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        _mistake(self)


def _mistake(error: E) -> E:
    """Marks the words of an error as fit for logs: they quote nothing that comes from outside."""
    vars(error)["_harmless"] = str(error)
    return error


class VMI(dict):  # type: ignore[type-arg]  # in Python 3.9, the base class cannot have them
    """The VirtualMachineInstance as Kubernetes JSON: a `dict` with a few shorthands."""

    @property
    def name(self) -> str:
        return self.at("metadata.name", "")  # type: ignore[no-any-return]

    @property
    def namespace(self) -> str:
        return self.at("metadata.namespace", "")  # type: ignore[no-any-return]

    def label(self, key: str) -> str | None:
        """Returns a label's value, or `None`."""
        return self._of("labels", key)

    def annotation(self, key: str) -> str | None:
        """Returns an annotation's value, or `None`."""
        return self._of("annotations", key)

    def at(self, path: str, default: Any = None) -> Any:
        """Returns the value at a path such as `spec.domain.devices.disks.0.name`, or `default`
        where something on the way is missing or null."""
        value: Any = self
        for key in path.split("."):
            if isinstance(value, dict):
                value = value.get(key)
            elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            else:
                return default
        return default if value is None else value

    def _of(self, kind: str, key: str) -> str | None:
        values = self.at(f"metadata.{kind}")
        value = values.get(key) if isinstance(values, dict) else None
        return value if isinstance(value, str) else None


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

    def raise_if_cancelled(self) -> None:
        """Raises `Cancelled` if the call is `cancelled`. For hooks that take long."""
        if self.cancelled:
            raise Cancelled


_running: contextvars.ContextVar[Call] = contextvars.ContextVar("kubevirt_hook.call")


class Worker:
    """The hooks of one program. The shim logs `name` and `version`.

    With a `concurrency` above 1, up to that many calls run at the same time, each in a thread. With
    `cancellable`, hooks run in a thread too. In both cases the shim reports calls whose caller has
    gone: see `Call.raise_if_cancelled`. Otherwise hooks run in the main thread, one at a time.
    """

    _has_run = False  # whether any worker of this program has

    def __init__(
        self, name: str, version: str = "", *, concurrency: int = 1, cancellable: bool = False
    ) -> None:
        _check_type("name", name, str)
        _check_type("version", version, str)
        _check_type("concurrency", concurrency, int)
        _check_type("cancellable", cancellable, bool)
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise ValueError(f"concurrency must be from 1 to {MAX_CONCURRENCY}")
        self.name, self.version = name, version
        self.concurrency = concurrency
        self.cancellable = cancellable or concurrency > 1
        self._functions: dict[str, tuple[str, Any]] = {}
        self._logging = _logging
        self._logging.connect()
        if IS_OF_SHIM:
            atexit.register(self._end_without_run)

    def on_define_domain(self, function: DomainHook = None) -> DomainHook:  # type: ignore[assignment]
        """Registers `function(vmi, domain)`. It returns the new libvirt document, or `None` for no
        change."""
        if function is None:  # @hook.on_define_domain()
            return self.on_define_domain
        return self._register(DEFINE, "domain", function)

    def edit_domain(self, function: EditHook = None) -> EditHook:  # type: ignore[assignment]
        """Registers `function(vmi, doc)`, which edits the libvirt document: a
        `kubevirt_xml.Document`. It returns nothing."""
        from kubevirt_xml import XmlError, parse

        if function is None:
            return self.edit_domain
        edits = function

        def edit(vmi: VMI, domain: str) -> str:
            try:
                doc = parse(domain)
            except XmlError as error:
                raise InvalidParams(f"domain: {error}") from None
            result: Any = edits(vmi, doc)
            if result is not None:
                raise _WrongResult(f"an edit_domain hook must return None, not {_kind(result)}")
            return str(doc)

        self._register(DEFINE, "domain", function, edit)
        return function

    def pre_cloud_init_iso(self, function: CloudInitHook = None) -> CloudInitHook:  # type: ignore[assignment]
        """Registers `function(vmi, data)`. It returns the new cloud-init data as a `dict` with
        KubeVirt's field names (`UserData`, …), or `None` for no change."""
        if function is None:
            return self.pre_cloud_init_iso
        return self._register(CLOUD_INIT, "cloudInitData", function)

    def on_node(self, name: str) -> Callable[[NodeHook], NodeHook]:
        """Registers `function(vmi, node_name)` for the node hook of this name, such as
        `preVMStart`. It returns nothing."""
        if not isinstance(name, str):
            raise TypeError('on_node needs the name of a hook: @hook.on_node("preVMStart")')
        plain = (
            name.isascii() and name.isalnum() and name[0].islower() and len(name) <= MAX_NAME_BYTES
        )
        if not plain or name in ("initialize", DEFINE, CLOUD_INIT):
            raise ValueError(
                f"invalid name of a node hook: {name!r} (it is KubeVirt's name with a lower-case"
                ' first letter, such as "preVMStart")'
            )
        return lambda function: self._register(name, "nodeName", function)

    def _register(self, name: str, member: str, function: F, run: Any = None) -> F:
        if name in self._functions:
            raise ValueError(f"the hook {name} is already registered")
        _check_function(name, function)
        self._functions[name] = (member, run or function)
        return function

    @property
    def call(self) -> Call:
        """The current call. Raises `LookupError` outside of a hook, and in threads that the hook
        started."""
        call = _running.get(None)
        if call is None:
            what = "no call runs in this thread; tests use kubevirt_testing.call"
            raise _mistake(LookupError(what))
        return call

    @property
    def log(self) -> logging.Logger:
        """A logger with this hook's name. Like all other loggers it writes to the shim's log."""
        import logging

        self._logging.connect()
        return logging.getLogger(self.name)

    def run(self) -> NoReturn:
        """Serves calls until the shim closes stdin; in argv style, runs the one call on the command
        line. Then exits."""
        Worker._has_run = True
        if not self._functions:
            sys.exit(f"{self.name}: no hooks are registered")
        # Removed, so that programs started by a hook do not act as workers.
        worker = os.environ.pop(WORKER_VARIABLE, None) is not None
        try:
            _check_descriptors()
        except OSError as error:
            sys.exit(f"{self.name}: cannot write to stdout: {error.strerror}")
        sys.exit(_Server(self).serve() if worker else _run_once(self, sys.argv))

    def _end_without_run(self) -> None:
        """Says why the shim gets no answer from a program that forgets `run`. Of programs that
        have ended with a traceback, and of children that `multiprocessing` starts, it is not
        expected."""
        is_started = WORKER_VARIABLE in os.environ or sys.argv[1:2] == [MEMBERS["vmi"][0]]
        is_other = hasattr(sys, "last_type") or "__mp_main__" in sys.modules
        if self._functions and is_started and not is_other and not Worker._has_run:
            print(f"{self.name}: the program has ended before run() was called", file=sys.stderr)

    def invoke(self, name: str, vmi: Json, document: Any) -> Any:
        """Calls the hook of this name as the shim does: for tests. Returns the new document, or
        `None` for no change."""
        if name not in self._functions:
            raise LookupError(f"there is no hook {name}")
        call = _running.get(None)
        return self._invoke(call or Call(name, None, None), vmi, document, name)

    def _invoke(self, call: Call, vmi: Json, subject: Any, name: str = "") -> Any:
        """Runs the hook. Returns the new document, or `None` for no change."""
        name = name or call.hook
        member, function = self._functions[name]
        self._logging.connect()  # an earlier call may have imported it
        sent = _encode(subject) if member == "cloudInitData" else ""
        before = _running.set(call)
        try:
            result = function(VMI(vmi), subject)
        finally:
            _running.reset(before)
        if member == "domain":
            result = _domain_text(result)
        elif sent and result is None and _decode(sent) != subject:  # the change would be lost
            raise _WrongResult(f"{name} has changed the data and returned None: return the data")
        elif result is not None and (member == "nodeName" or not isinstance(result, dict)):
            wanted = "None" if member == "nodeName" else "a dict or None"
            raise _WrongResult(f"{name} must return {wanted}, not {_kind(result)}")
        return None if member == "domain" and result == subject else result


def _check_function(name: str, function: Any) -> None:
    """Checks, when a function is registered, what would fail in each call."""
    if not callable(function) or isinstance(function, type):
        kind = f"the class {function.__name__}" if callable(function) else _kind(function)
        raise TypeError(f"{name}: a function is needed, not {kind}")
    plain = getattr(function, "__func__", function)  # of a method
    code = getattr(plain, "__code__", None)
    called = getattr(plain, "__name__", None) or type(plain).__name__
    if (code or _innermost_code(function, 0)).co_flags & UNFINISHED_FLAGS:
        raise TypeError(
            f"{name}: {called} is asynchronous or a generator, and hooks are not: define it"
            " with def, and call asyncio.run inside"
        )
    if not (_takes_two(plain, code, plain is not function) if code else _binds_two(function)):
        raise TypeError(f"{name}: {called} must take two arguments, the VMI and the document")


def _takes_two(function: Any, code: Any, is_method: bool) -> bool:
    """Whether a function of Python code can be called with two arguments."""
    given = 2 + is_method
    least = code.co_argcount - len(function.__defaults__ or ())
    most = given if code.co_flags & 0x04 else code.co_argcount  # with *arguments, any number
    needed = set(code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount])
    return least <= given <= most and not needed - (function.__kwdefaults__ or {}).keys()


def _binds_two(function: Any) -> bool:
    """Whether another kind of callable can be called with two arguments."""
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # it has none, like some functions of C code
        return True
    try:
        signature.bind(None, None)
    except TypeError:
        return False
    return True


def _innermost_code(function: Any, depth: int) -> Any:
    """Returns the code that runs when a partial function, an object or the like is called; that of
    this function if it is not Python code."""
    plain = getattr(function, "__func__", function)
    code = getattr(plain, "__code__", None)
    if code or depth == MAX_WRAPPERS:
        return code or _innermost_code.__code__
    # What functools.partial calls, and functools.lru_cache.
    inner = getattr(plain, "func", None) or getattr(plain, "__wrapped__", None)
    return _innermost_code(inner if callable(inner) else type(plain).__call__, depth + 1)


def _check_type(name: str, value: Any, wanted: type) -> None:
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        article = "an" if wanted is int else "a"
        raise TypeError(f"{name} must be {article} {wanted.__name__}, not {_kind(value)}")


def _domain_text(result: Any) -> str | None:
    """Returns a domain hook's result as a text."""
    if result is None or isinstance(result, str):
        return result
    if isinstance(result, (bytes, bytearray)):
        try:
            return result.decode()
        except UnicodeDecodeError:
            raise _WrongResult(f"{DEFINE} has returned bytes that are not UTF-8") from None
    xml = sys.modules.get("kubevirt_xml")
    if xml and isinstance(result, xml.Document):
        return str(result)
    raise _WrongResult(f"{DEFINE} must return a str, bytes, Document or None, not {_kind(result)}")


def _kind(value: Any) -> str:
    name = type(value).__name__
    if name == "coroutine":
        return f"a {name}; a hook that is asynchronous calls asyncio.run itself"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


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
    except (TypeError, ValueError, RecursionError) as error:
        raise _WrongResult(f"the result cannot be JSON: {error}") from None


def _result_bytes(result: Any) -> bytes:
    if not isinstance(result, str):
        return _json_bytes(result)
    try:
        return str.encode(result)
    except UnicodeEncodeError:
        raise _WrongResult(f"{DEFINE} has returned a lone surrogate") from None


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


def _check_descriptors() -> None:
    """Makes sure that stdin and stderr are open: a new descriptor would take their place. Fails if
    stdout is closed."""
    try:
        os.fstat(0)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # the lowest descriptor that is free
    os.fstat(1)
    try:
        os.fstat(2)
    except OSError:
        os.open(os.devnull, os.O_RDWR)


def _move_stdout() -> int:
    """Takes over stdout and returns it as a new descriptor. From now on, output of this process and
    its children goes to stderr."""
    output = os.dup(1)
    _descriptors.add(output)
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()  # Python 3.9 would write it twice
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    return output


# ---- errors ----


def _deliberate(error: BaseException) -> HookError | None:
    """Returns the error that the hook has raised on purpose: this one, one that it was raised from,
    or one of an exception group."""
    pending = [error]
    for _ in range(MAX_CAUSES):
        if pending:
            for cause in _chain(pending.pop(0), lambda it: it.__cause__):
                if isinstance(cause, HookError):
                    return cause
                pending += _grouped(cause)
    return None


def _grouped(error: BaseException) -> list[BaseException]:
    """Returns the exceptions of a group, which Python has from version 3.11 on."""
    group: Any = getattr(builtins, "BaseExceptionGroup", ())
    return [*error.exceptions] if isinstance(error, group) else []


def _chain(
    error: BaseException, following: Callable[[BaseException], BaseException | None]
) -> Iterator[BaseException]:
    """Yields an exception and those that have led to it, the last one first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen and len(seen) < MAX_CAUSES:
        seen.add(id(cause))
        yield cause
        cause = following(cause)


def _reasons(error: BaseException) -> list[BaseException]:
    """Returns an exception and those that its traceback would show."""
    found: list[BaseException] = []
    pending = [error]
    while pending and len(found) < MAX_CAUSES:
        reasons = _chain(
            pending.pop(0),
            lambda it: it.__cause__ or (it.__context__ if not it.__suppress_context__ else None),
        )
        for reason in reasons:
            found.append(reason)
            pending += _grouped(reason)
    return found[:MAX_CAUSES]


def _report(sink: Sink, level: str, what: str, error: BaseException, debug: bool) -> None:
    """Logs an exception: its type and where it was raised, in one record. Its words may quote a
    document, so they are only for debugging."""
    reasons = _reasons(error)
    lines = [what]
    for number, reason in enumerate(reasons):
        words = getattr(reason, "_harmless", "")  # of an error of this SDK
        lines.append(
            f"{'caused by ' if number else ''}{_type_name(reason)}{words and f': {words}'}"
        )
        lines += _frame_lines(reason.__traceback__)
    sink(level, "\n".join(lines), {})
    if debug:
        words = [f"{_type_name(reason)}: {_words(reason)}" for reason in reasons]
        sink("debug", "\n".join(["the words, which may quote a document:", *words]), {})


def _words(value: object) -> str:
    """Returns the text of an exception, or of another value. Its methods may fail."""
    try:
        # A subclass of `str` counts as the text that it has.
        return str.__str__(value) if isinstance(value, str) else str(value)
    except BaseException as fault:  # SystemExit, for example
        return f"{_kind(value)} whose str() fails with {_type_name(fault)}"


def _type_name(error: BaseException) -> str:
    kind = type(error)
    try:
        module, name = str(kind.__module__), kind.__qualname__
    except BaseException:  # of a metaclass
        return "an exception whose type has no name"
    return name if module == "builtins" else f"{module}.{name}"


def _frame_lines(trace: TracebackType | None) -> list[str]:
    """Returns the places of a traceback, without this file's own at its start."""
    while trace and trace.tb_next and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    lines = []
    while trace:
        code = trace.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}')
        trace = trace.tb_next
    left_out = len(lines) - FIRST_FRAMES - LAST_FRAMES
    if left_out > 0:
        lines[FIRST_FRAMES:-LAST_FRAMES] = [f"  … {left_out} more"]
    return lines


# ---- argv style: one process for each call ----


class _UsageError(Exception):
    """An invalid command line."""


def _is_imported() -> bool:
    """Returns whether another program, such as a test, has imported the one that calls `run`."""
    import inspect  # takes long, and mistakes alone need it

    frame = inspect.currentframe()
    while frame and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") != "__main__"


def _run_once(hook: Worker, argv: list[str]) -> int:
    """Runs the call on the command line. Returns the exit status."""
    if argv[1:] in (["-h"], ["--help"]):
        print(_usage(hook))
        return 0
    output = _move_stdout()
    try:
        name, given = _arguments(hook, argv)
    except _UsageError as error:
        print(f"{hook.name}: {error}\n{_usage(hook)}", file=sys.stderr)
        if _is_imported():
            what = 'is it imported, as by a test? Then call run() only if __name__ == "__main__"'
            print(what, file=sys.stderr)
        return 2
    hook._logging.start(_print_line)
    process = os.getpid()
    call = Call(name, None, {"context": os.environ.get("KUBEVIRT_HOOK_CONTEXT")})
    member = hook._functions[name][0]
    try:
        vmi, subject = _document("vmi", given["vmi"]), _document(member, given[member])
        result = hook._invoke(call, vmi, subject)
        data = given[member] if result is None else _result_bytes(result)
    except BaseException as error:  # asyncio.CancelledError and SystemExit, for example
        known = hook._logging.report(error)
        if known:
            # Without a level: the shim reports it as the reason of the failure.
            print(f"{hook.name}: {_message(known)}", file=sys.stderr)
        return 1
    if os.getpid() != process:  # the document is the parent's to write
        print(f"{hook.name}: {FORKED}", file=sys.stderr)
        return 1
    if member != "nodeName":  # a node hook's result is its exit status
        _write_all(output, data)
    return 0


def _arguments(hook: Worker, argv: list[str]) -> tuple[str, dict[str, bytes]]:
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


def _usage(hook: Worker) -> str:
    lines = [f"{name} {_flags(member)}" for name, (member, _) in sorted(hook._functions.items())]
    lines.append("or as a worker of sidecar-shim --mode persistent")
    return "usage: " + "\n       ".join(lines)


# ---- logging ----


def _print_line(level: str, text: str, fields: Fields) -> None:
    """Logs to stderr: with a number for the level if the shim reads those."""
    text = _plain(_with_fields(text, fields))
    if os.environ.get(LEVELS_VARIABLE) == "1":
        mark = f"<{LEVELS[level][1]}>"
        text = mark + text.replace("\n", f"\n{mark}")
    else:
        text = f"{level.upper()}: {text}"
    _write_all(2, f"{text}\n".encode())


def _with_fields(text: str, fields: Fields) -> str:
    return text + "".join(f" {name}={_field_text(fields[name])}" for name in fields)


def _field_text(value: Any) -> str:
    simple = isinstance(value, str) and value.isprintable() and not set(value) & set(' "=')
    return value if simple and value else _encode(value)


def _is_default(handler: logging.Handler) -> bool:
    """Whether a handler is that of `logging.basicConfig` without arguments. `logging.warning` and
    its like call it, so it says nothing of what the program wants."""
    import logging

    if type(handler) is not logging.StreamHandler or handler.stream is not sys.stderr:
        return False
    record = logging.LogRecord("name", logging.INFO, "", 0, "text", (), None)
    return (
        handler.level == logging.NOTSET
        and not handler.filters
        and handler.format(record) == logging.Formatter(logging.BASIC_FORMAT).format(record)
    )


def _handler(target: _Logging) -> logging.Handler:
    import logging

    record = logging.LogRecord("", 0, "", 0, "", (), None)  # not of the program's record factory
    standard = {*vars(record), "message", "asctime", "taskName"}

    class Handler(logging.Handler):
        """Hands log records to the shim."""

        def emit(self, record: logging.LogRecord) -> None:
            try:
                extra = {it: record.__dict__[it] for it in record.__dict__ if it not in standard}
                target.emit(record, self.format(record), extra)
            except Exception:
                self.handleError(record)

    return Handler()


class _Level(int):
    """A level that was set here: the same one, set by the program, is another object."""


class _Logging:
    """Connects the root logger to the shim, unless the program has configured it. The module
    `logging` is imported only by those who use it."""

    def __init__(self) -> None:
        self._sink: Sink | None = None
        # The least level that the shim logs, and the level that was set here.
        self._wanted = LEVELS["info"][0]
        self._set: _Level | None = None
        self._handler: logging.Handler | None = None
        self._early: list[logging.LogRecord] = []

    def start(self, sink: Sink) -> None:
        """From now on, records go to the shim; first those that came before."""
        self._sink = sink
        if sys.unraisablehook is sys.__unraisablehook__:
            sys.unraisablehook = lambda unraised: self._report_elsewhere(
                "an exception in a finalizer or the like", unraised.exc_value
            )
        self.connect()
        early, self._early = self._early, []
        for record in early:
            sys.modules["logging"].getLogger().handle(record)

    def set_level(self, name: Any) -> None:
        """Takes the least level that the shim logs, as the protocol names it."""
        known = LEVELS.get(name) if isinstance(name, str) else None
        self._wanted = (known or LEVELS["info"])[0]
        self.connect()

    def connect(self) -> None:
        """Connects the root logger, if there is a module `logging` by now, and threads."""
        threading: Any = sys.modules.get("threading")
        # Python 3.9 does not have this name.
        initial = getattr(threading, "__excepthook__", None)
        if self._sink and initial and threading.excepthook is initial:
            threading.excepthook = lambda raised: self._report_elsewhere(
                "a fault in a thread of the hook's", raised.exc_value
            )
        logging: Any = sys.modules.get("logging")
        if logging is None or not hasattr(logging, "lastResort"):  # it is just being imported
            return
        root = logging.getLogger()
        if self._handler is None:
            self._handler = _handler(self)
            root.addFilter(self._connect_first)
        default = [it for it in root.handlers if _is_default(it)]
        if len(root.handlers) > len(default) + (self._handler in root.handlers):
            # The program has handlers that it has set up.
            if root.level is self._set:
                root.setLevel(logging.WARNING)  # as it was
            self._set = None
            return
        if root.level is self._set or (self._set is None and root.level == logging.WARNING):
            # It was set here, or is the default.
            self._set = _Level(self._wanted)
            root.setLevel(self._set)
        # Another program that imports a hook, such as a test, keeps the default handler.
        for handler in default if self._sink or IS_OF_SHIM else ():
            root.removeHandler(handler)
        if self._sink and not root.handlers:
            root.addHandler(self._handler)
        elif not self._sink and logging.lastResort is not self._handler:
            logging.lastResort = self._handler
            atexit.register(self._print_early)

    def _connect_first(self, _: logging.LogRecord) -> bool:
        """Filters nothing. `logging.warning` and its like give the root logger a default handler
        before it gets their record."""
        self.connect()
        return True

    def _print_early(self) -> None:
        """Prints what would be lost because `run` was never called."""
        early, self._early = self._early, []
        for record in early:
            self._print(record)

    @staticmethod
    def _print(record: logging.LogRecord) -> None:
        """Prints a record as `logging` does for programs that have no handler."""
        if record.levelno >= LEVELS["warning"][0]:
            print(record.getMessage(), file=sys.stderr)

    def emit(self, record: logging.LogRecord, text: str, extra: Json) -> None:
        """Takes a log record, its text and its fields."""
        if self._sink is None:
            if len(self._early) < MAX_EARLY:
                self._early.append(record)
            else:
                self._print(record)
            return
        levels = (name for name in reversed(LEVELS) if record.levelno >= LEVELS[name][0])
        self._sink(next(levels, "debug"), text, _fields(extra))

    def report(self, error: BaseException) -> HookError | None:
        """Logs an exception of a hook. Returns the error that it has raised on purpose, if any."""
        assert self._sink
        try:
            return self._reported(self._sink, error)
        except OSError:  # usually: the shim has exited
            raise
        except BaseException as fault:  # of the exception's own attributes
            what = f"a fault in the hook's code, whose exception raises {_type_name(fault)}"
            self._sink("error", what, {})
            return None

    def _report_elsewhere(self, what: str, error: BaseException | None) -> None:
        """Logs an exception that fails no call."""
        if self._sink and error and not isinstance(error, SystemExit):
            _report(self._sink, "error", what, error, self._is_debug())

    def _reported(self, sink: Sink, error: BaseException) -> HookError | None:
        known = _deliberate(error)
        if known is None:
            if sys.excepthook is not sys.__excepthook__:  # the program's own, for its own purposes
                try:
                    sys.excepthook(type(error), error, error.__traceback__)
                except BaseException as fault:  # SystemExit, for example
                    _report(sink, "error", "sys.excepthook fails", fault, self._is_debug())
            _report(sink, "error", "a fault in the hook's code", error, self._is_debug())
        elif known is not error or len(_reasons(known)) > 1:
            what = f"{type(known).__name__} was raised with another exception"
            _report(sink, "info", what, error, self._is_debug())
        return known

    def _is_debug(self) -> bool:
        logging = sys.modules.get("logging")
        return min(self._wanted, logging.getLogger().level if logging else 50) <= LEVELS["debug"][0]


def _fields(extra: Json) -> Fields:
    """Returns what the protocol takes of a record's fields."""
    fields: Fields = {}
    for name in list(extra)[:MAX_FIELDS]:
        fields[_plain(_words(name)[:MAX_NAME])] = _field(extra[name])
    return fields


def _field(value: Any) -> str | int | float | bool:
    is_number = isinstance(value, bool)
    if isinstance(value, int):
        is_number = is_number or -MAX_INTEGER - 1 <= int(value) <= MAX_INTEGER
    elif isinstance(value, float):
        is_number = float(value) - float(value) == 0  # finite
    return value if is_number else _plain(_words(value)[:MAX_FIELD])


_logging = _Logging()
_logging.connect()  # a program may log before it has a worker


# ---- the worker ----


class _ProtocolError(Exception):
    """Invalid input. The stream cannot be resynchronized."""


class _NoCommonVersion(InvalidParams):
    """The shim supports no protocol version that this file supports."""


class _Channel:
    """Messages from and to the shim.

    The pipes to the shim must carry only frames, and only this class may read them. So both move
    to descriptors that other code and child processes do not have.
    """

    def __init__(self) -> None:
        self._stream = io.BufferedReader(io.FileIO(os.dup(0)), STEP_BYTES)
        _descriptors.add(self._stream.fileno())
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
            raise _ProtocolError(FORKED)
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

    def log(self, level: str, text: str, fields: Fields) -> None:
        """Logs a text, with the id of the current call."""
        if self.forked or self.interrupted:
            _print_line(level, text, fields)  # sys.stderr may be interrupted as well
            return
        call = _running.get(None)
        params: Json = {"level": level, "message": _plain(text)}
        if call:
            params["id"] = call.id
        if fields:
            params["fields"] = fields
        self.write(_frames({"method": "$/log", "params": params}))


def _frames(message: Json, *attached: bytes) -> list[bytes]:
    return _fitting([_json_bytes({"jsonrpc": "2.0", **message}), *attached])


def _fitting(frames: list[bytes]) -> list[bytes]:
    if max(map(len, frames)) > MAX_FRAME_BYTES:
        raise Refused("the result does not fit a frame")
    return frames


def _message(error: HookError | None) -> str:
    """Returns the text for the VM's owner. That of a fault was not written for them, and may quote
    a document."""
    if isinstance(error, Cancelled):
        return "the call was cancelled"
    if error is None:
        return "a fault in the hook's code; its log has the trace"
    return _plain(_words(error)) or "the hook refuses, and gives no reason"


def _error(error: HookError | None) -> Json:
    """Returns the protocol's error for one that a hook has raised on purpose, or for a fault."""
    code = FAULT
    data: Json = {}
    if isinstance(error, Refused):
        code, data = REFUSED, {"retryable": True} if error.retryable else {}
    elif isinstance(error, _NoCommonVersion):
        code, data = INVALID_PARAMS, {"protocolVersions": [PROTOCOL_VERSION]}
    elif isinstance(error, InvalidParams):
        code = INVALID_PARAMS
    elif isinstance(error, Cancelled):
        code = CANCELLED
    return {"code": code, "message": _message(error), **({"data": data} if data else {})}


def _end(error: BaseException) -> str:
    """Returns the reason of the worker's exit. An exception's words may quote a document."""
    if isinstance(error, _ProtocolError):
        return str(error)
    if isinstance(error, OSError) and error.errno:  # usually: the shim has exited
        return os.strerror(error.errno)
    return f"{_type_name(error)} was raised outside of a call"  # by a signal handler of the hook's


class _Server:
    """Reads requests, runs hooks and sends responses."""

    def __init__(self, hook: Worker) -> None:
        self._hook, self._channel = hook, _Channel()
        self._attach = False
        self._open: dict[int | None, Call] = {}  # calls in flight
        self._threads = _Threads(hook.concurrency) if hook.cancellable else None
        hook._logging.start(self._channel.log)

    def serve(self) -> int:
        """Serves requests until EOF. Returns the exit status."""
        try:
            for message, attached in self._channel.messages():
                self._take(message, attached)
                del message, attached
            if self._threads:
                self._threads.finish()
        except Exception as error:
            # Without a level: the shim reports it as the reason of the worker's exit.
            print(f"{self._hook.name}: {_end(error)}", file=sys.stderr)
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
            raise _NoCommonVersion("no common protocol version")
        shim = said.get("capabilities") or {}
        self._attach = shim.get("attachments") is True
        hook = self._hook
        hook._logging.set_level(said.get("logLevel"))
        return {
            "protocolVersion": PROTOCOL_VERSION,
            "worker": {"name": hook.name, "version": hook.version},
            "sdk": {"name": "python", "version": __version__},
            "hooks": sorted(hook._functions),
            "capabilities": {
                "attachments": True,
                "cancel": hook.cancellable,
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
            return [{}, _result_bytes(result)]
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
        except BaseException as error:  # asyncio.CancelledError and SystemExit, for example
            frames = _frames({"id": ident, "error": _error(self._reported(error, call))})
        if call:
            self._open.pop(call.id, None)
        self._channel.write(frames)

    def _reported(self, error: BaseException, call: Call | None) -> HookError | None:
        """Logs an exception of a call. Returns the error that was raised on purpose."""
        if call and call._cancelled:
            return Cancelled()
        before = _running.set(call) if call else None  # the log lines belong to it
        try:
            return self._hook._logging.report(error)
        finally:
            if before:
                _running.reset(before)


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
                print(_end(error), file=sys.stderr, flush=True)
                os._exit(1)
            del job  # freed before the next `get` blocks

    def finish(self) -> None:
        """Waits for the calls in flight."""
        for _ in self._threads:
            self._jobs.put(())
        for thread in self._threads:
            thread.join()


# ---- the garbage collector ----

# The types with finalizers of the objects with which this file reads messages.
OWN_TYPES = (io.FileIO, io.BufferedReader)
_descriptors: set[int] = set()  # that this file has opened


def _has_opened_files() -> bool:
    """Whether the program has files open. The descriptors that Python opens are not inheritable,
    unlike those that the shim has left open. Without /proc, the answer is yes."""
    try:
        found = {int(name) for name in os.listdir("/proc/self/fd")}
    except OSError:
        return True
    return any(map(_is_opened_here, found - _descriptors - {0, 1, 2}))


def _is_opened_here(descriptor: int) -> bool:
    try:
        return not os.get_inheritable(descriptor)
    except OSError:  # it was that of the listing
        return False


def _unfreeze_if_needed() -> None:
    """Lets the interpreter collect everything when it ends, if that may have an effect: the program
    has left files open, or has created objects with finalizers, such as buffers of stderr."""
    types = {type(it) for it in gc.get_objects()}.difference(OWN_TYPES)
    if any(hasattr(it, "__del__") for it in types) or _has_opened_files():
        gc.unfreeze()


# What has been imported so far stays until the program ends. Frozen, it takes no time when garbage
# is collected: while hooks run, and several times when the interpreter ends.
if COLLECTS:
    if not _has_opened_files():
        gc.freeze()
        # The handler that is registered first runs last.
        atexit.register(_unfreeze_if_needed)
    gc.enable()
