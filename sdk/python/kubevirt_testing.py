# kubevirt_testing of kubevirt-hook 0.1.0 for Python. May be copied, beside the other two files.
"""Tests of hooks, with any test framework.

    from kubevirt_testing import assert_idempotent, call
    from my_hook import hook

    VMI = {"metadata": {"name": "vm1", "labels": {"example.com/title": "a"}}}

    def test_title():
        domain = assert_idempotent(hook, VMI, "<domain/>")
        assert "<title>a</title>" in domain

    def test_warning():
        with call(context="MigrationTarget") as log:
            hook.invoke("onDefineDomain", VMI, "<domain/>")
        assert log == ["WARNING: no title on this node"]

README.md has more of it. Images of hooks do not need this file.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Union

import kubevirt_hook
from kubevirt_hook import CLOUD_INIT, DEFINE, VMI, Call, Worker
from kubevirt_xml import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubevirt_xml import Element

__version__ = "0.1.0"
__all__ = ["assert_idempotent", "call", "rewritten"]

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
KUBEVIRT = "http://kubevirt.io"
# As Go's encoding/xml writes texts and values.
ESCAPES = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        '"': "&#34;",
        "'": "&#39;",
        "\t": "&#x9;",
        "\n": "&#xA;",
        "\r": "&#xD;",
    }
)
Hook = Union[Worker, Callable[[VMI, str], Any]]


@contextmanager
def call(  # noqa: PLR0913
    *,
    hook: str = DEFINE,
    context: str | None = None,
    attempt: int = 1,
    remaining: float | None = None,
    cancelled: bool = False,
    level: str = "info",
) -> Iterator[list[str]]:
    """Makes a call that `hook.call` returns within the `with` statement: its hook point, context,
    attempt, seconds until the deadline, and whether it is cancelled. Yields a list that gets what
    is logged, from this level on, as exec mode writes it: `WARNING: no disk vdc disks=2`."""
    import logging

    lines: list[str] = []
    said: dict[str, Any] = {"context": context, "attempt": attempt}
    if remaining is not None:
        said["deadlineMs"] = remaining * 1000
    made = Call(hook, None, said)
    made._cancelled = cancelled
    capture = kubevirt_hook._Logging()
    capture._sink = lambda level, text, fields: lines.append(
        f"{level.upper()}: {kubevirt_hook._with_fields(text, fields)}"
    )
    handler = kubevirt_hook._handler(capture)
    root = logging.getLogger()
    handlers, before = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(kubevirt_hook.LEVELS[level][0])
    token = kubevirt_hook._running.set(made)
    try:
        yield lines
    finally:
        kubevirt_hook._running.reset(token)
        root.handlers[:] = handlers
        root.setLevel(before)


def assert_idempotent(hook: Hook, vmi: dict[str, Any], document: Any) -> Any:
    """Asserts that a hook has nothing to do on its own result: neither as it is, nor as KubeVirt
    hands it back to a sidecar and to a Plugin. Returns the result.

    `hook` is a `Worker`, or a function of a VMI and a domain. `document` is the domain, a `str`,
    or the cloud-init data, a `dict`."""
    name = CLOUD_INIT if isinstance(document, dict) else DEFINE

    def run(given: Any) -> Any:
        fresh = json.loads(json.dumps([vmi, given]))  # a hook may keep or change what it gets
        if isinstance(hook, Worker):
            result = hook.invoke(name, *fresh)
        else:
            result = kubevirt_hook._domain_text(hook(VMI(fresh[0]), fresh[1]))
        return given if result is None else result

    once = run(document)
    forms = {"its own result": once}
    if name == DEFINE:
        for receiver in ("sidecar", "plugin"):
            what = f"its own result, as KubeVirt hands it back to a {receiver}"
            forms[what] = rewritten(once, receiver)
    for what, given in forms.items():
        again = run(given)
        if again != given:
            raise AssertionError(
                f"the hook is not idempotent: it changes {what}:\n{_difference(given, again)}"
            )
    return once


def rewritten(domain: str, receiver: str) -> str:
    """Returns a domain as KubeVirt hands it back to the hook that has returned it: a `sidecar`'s or
    a `plugin`'s. KubeVirt reads the domain into its types, and writes those.

    Comments, elements in foreign namespaces and prefixes are gone, and so is metadata that is not
    KubeVirt's. QEMU's command line stays, as the last element. Not modelled: the order of elements,
    fields that KubeVirt's types lack, empty elements that they add, and white space in values."""
    doc = parse(domain)
    doc.root._source.prefixes.clear()  # KubeVirt takes no undeclared ones
    return _Writer(receiver == "plugin").document(doc.root)


class _Writer:
    """Writes a domain as Go's encoding/xml does. crates/hookctl/src/rewrite is its model."""

    def __init__(self, is_plugin: bool) -> None:
        self._is_plugin = is_plugin
        self._level = "  " if is_plugin else "\t"
        self._items: list[Element] | None = None
        self._roots = ""

    def document(self, root: Element) -> str:
        self._roots = root.namespace  # counts as libvirt's
        children = [self._child(it, 1) for it in root.find_all("*")]
        inside = [it for it in children if it]
        start = f"<{root.name}{_attributes(root)}"
        if self._items:
            inside.append(self._command_line())
        if self._items is not None and not self._is_plugin:
            start += f' xmlns:qemu="{QEMU}"'
        return f"{start}>{self._lines(inside, 1) or _text(root)}</{root.name}>"

    def _child(self, element: Element, depth: int) -> str:
        """Returns an element in its written form, or an empty text if it is gone."""
        uri = element._namespace()
        if depth == 1 and uri == QEMU and element.name == "commandline":
            self._items = self._items or []
            self._items += [
                it
                for it in element.find_all("*")
                if it.name in ("arg", "env") and (self._is_plugin or it.namespace == QEMU)
            ]
            return ""
        if uri not in ("", self._roots):
            return ""
        if depth == 1 and element.name == "metadata":
            return self._metadata(element)
        inside = [self._child(it, depth + 1) for it in element.find_all("*")]
        lines = self._lines([it for it in inside if it], depth + 1)
        return f"<{element.name}{_attributes(element)}>{lines or _text(element)}</{element.name}>"

    def _metadata(self, element: Element) -> str:
        own = [
            it for it in element.find_all("*") if (it.namespace, it.name) == (KUBEVIRT, "kubevirt")
        ]
        inside = [self._in_metadata(it, 2, f' xmlns="{KUBEVIRT}"') for it in own]
        lines = "".join(inside) if self._is_plugin else self._lines(inside, 2)
        return f"<metadata{_attributes(element)}>{lines or _text(element)}</metadata>"

    def _in_metadata(self, element: Element, depth: int, declared: str = "") -> str:
        inside = [self._in_metadata(it, depth + 1) for it in element.find_all("*")]
        lines = "".join(inside) if self._is_plugin else self._lines(inside, depth + 1)
        start = f"<{element.name}{declared}{_attributes(element)}>"
        return f"{start}{lines or _text(element)}</{element.name}>"

    def _command_line(self) -> str:
        prefix, declared = ("", f' xmlns="{QEMU}"') if self._is_plugin else ("qemu:", "")
        items = [
            f"<{prefix}{it.name}{_attributes(it)}></{prefix}{it.name}>" for it in self._items or []
        ]
        return f"<{prefix}commandline{declared}>{self._lines(items, 2)}</{prefix}commandline>"

    def _lines(self, elements: list[str], depth: int) -> str:
        """Puts each element on a separate line."""
        line = "\n" + self._level * depth
        return "".join(line + it for it in elements) + (
            line[: -len(self._level)] if elements else ""
        )


def _attributes(element: Element) -> str:
    attributes = element.attributes.items()
    return "".join(
        f' {it}="{value.translate(ESCAPES)}"' for it, value in attributes if ":" not in it
    )


def _text(element: Element) -> str:
    text = element.text
    return text.translate(ESCAPES) if text.strip() else ""


def _difference(before: Any, after: Any) -> str:
    from difflib import unified_diff

    texts = [it if isinstance(it, str) else json.dumps(it, indent=2) for it in (before, after)]
    given, returned = (text.splitlines() for text in texts)
    return "\n".join(unified_diff(given, returned, "given", "returned", lineterm=""))
