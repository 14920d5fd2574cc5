"""A hook with types. CI checks it with mypy against the installed package."""

from __future__ import annotations

from typing import Any

import kubevirt_xml
from kubevirt_hook import VMI, Call, HookError, InvalidParams, Refused, Worker

hook = Worker("typed", "1.0.0", concurrency=2, cancellable=True)


@hook.edit_domain
def edit(vmi: VMI, doc: kubevirt_xml.Document) -> None:
    call: Call = hook.call
    call.raise_if_cancelled()
    if call.context == "MigrationTarget":
        raise Refused("not here", retryable=call.attempt == 1)
    hook.log.info("%s has %s s left", call.id, call.remaining())
    size: str | None = vmi.label("size")
    title = doc.find("title")
    if title is not None and title.get("lang", "en") and vmi.name and size:
        title.remove()
    name: kubevirt_xml.Element = doc.ensure("name")
    name.text = name.text.replace("vm", vmi.at("metadata.name", "new"))


@hook.pre_cloud_init_iso
def cloud_init(vmi: VMI, data: dict[str, Any]) -> dict[str, Any]:
    try:
        return {**data, "UserData": str(vmi)}
    except HookError as error:
        raise InvalidParams(str(error)) from error


@hook.on_node("preVMStart")
def start(vmi: VMI, node_name: str) -> None:
    hook.log.info("%d members on %s", len(vmi), node_name)


texts = Worker("texts")


@texts.on_define_domain
def define(vmi: VMI, domain: str) -> str | bytes | kubevirt_xml.Document | None:
    return kubevirt_xml.parse(domain) if vmi else domain.encode()


def test_it() -> None:
    from kubevirt_testing import assert_idempotent, call

    with call(context="Boot", remaining=1) as log:
        result: str | None = assert_idempotent(hook, VMI({}), "<domain/>")
    assert result and log == [""]


if __name__ == "__main__":
    hook.run()
