"""A hook with types. CI checks it with mypy against the installed package."""

from __future__ import annotations

from typing import Any

import kubevirt_xml
from kubevirt_hook import Call, Hook, InvalidParams, Refused

hook = Hook("typed", "1.0.0", concurrency=2, cancel=True)


@hook.on_define_domain
def define(vmi: dict[str, Any], domain: str) -> str | None:
    call: Call = hook.call
    call.check()
    if call.context == "MigrationTarget":
        raise Refused("not here", retryable=call.attempt == 1)
    hook.log.info("%s has %s s left", call.id, call.remaining())
    return None if vmi else renamed(domain)


def renamed(domain: str) -> str:
    try:
        document: kubevirt_xml.Document = kubevirt_xml.parse(domain)
    except kubevirt_xml.XmlError as error:
        raise InvalidParams(f"domain: {error}") from None
    root = document.root
    title = root.child("title")
    if title is not None and title.get("lang"):
        root.remove(title)
    name: kubevirt_xml.Element = root.ensure("name")
    name.text = name.text.replace("vm", "new")
    return str(document)


@hook.pre_cloud_init_iso
def cloud_init(vmi: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "UserData": str(vmi)}


@hook.on_node("preVMStart")
def start(vmi: dict[str, Any], node_name: str) -> None:
    hook.log.info("%d members on %s", len(vmi), node_name)


if __name__ == "__main__":
    hook.run()
