#!/usr/bin/env python3
"""Plays cases of sdk/vectors/xml.json. As a program, the runner of sdk/vectors/random_edits.py."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from kubevirt_xml import Document, Element, PathError, parse

ERRORS = {"path": PathError, "value": ValueError}


class Unexpected(Exception):
    """A step has found something else than the case says."""


def play(case: dict) -> Document:
    """Does the steps of a case. Returns the document."""
    doc = parse(text_of(case["document"]))
    for prefix, uri in case.get("namespaces", {}).items():
        doc.namespace(prefix, uri)
    named = {"root": doc.root}
    for number, step in enumerate(case.get("steps", ()), 1):
        try:
            play_step(doc, step, named)
        except Exception as error:
            if "error" not in step:
                raise Unexpected(f"step {number}: {type(error).__name__}: {error}") from error
            is_path = isinstance(error, PathError)
            expect(
                number,
                is_path
                if step["error"] == "path"
                else not is_path and isinstance(error, ValueError),
                True,
            )
            expect(number, step.get("says", "") in str(error), True)
        else:
            expect(number, "error" in step, False)
    return doc


def play_step(doc: Document, step: dict, named: dict) -> None:
    element: Element = named[step["on"]]
    do, wanted = step["do"], step.get("as")
    if do in ("find", "find_all", "ensure", "append", "insert_before"):
        found = getattr(element, do)(step["path"], *step.get("values", ()))
        if isinstance(wanted, list):
            expect("find_all", len(found), len(wanted))
            named.update(zip(wanted, found))
        else:
            expect(do, found is None, wanted is None)
            named[wanted] = found
    elif do == "get":
        expect(do, element.get(step["name"]), step.get("is"))
    elif do == "set":
        element.set(step["name"], step["value"])
    elif do == "remove_attribute":
        element.remove_attribute(step["name"])
    elif do == "attributes":
        expect(do, list(element.attributes.items()), [tuple(it) for it in step["are"]])
    elif do == "text":
        expect(do, element.text, step["is"])
    elif do == "set_text":
        element.text = step["value"]
    elif do == "name":
        expect(do, element.name, step["is"])
        expect(do, element.namespace, step.get("namespace", element.namespace))
    elif do == "parent":
        expect(do, element.parent is None, wanted is None)
        named[wanted] = element.parent
    elif do == "same":
        expect(do, element is named[step["other"]], True)
    elif do == "remove":
        element.remove()
    elif do == "namespace":
        doc.namespace(step["prefix"], step["value"])
    else:
        raise AssertionError(f"unknown operation {do}")


def expect(what: object, found: object, wanted: object) -> None:
    if found != wanted:
        raise Unexpected(f"{what}: {found!r}, not {wanted!r}")


def text_of(value: object) -> str:
    return "\n".join(value) if isinstance(value, list) else value


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            answer = {"document": str(play(json.loads(line)))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer))
