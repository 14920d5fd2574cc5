"""Checks that a newcomer finds each task from the README with two clicks at most, and prints the clicks.

A click is a link in the text of a page. What a page says without a link, a reader has to search for.
"""

import sys
from pathlib import Path

from links import repository_pages, resolve
from markdown_it import MarkdownIt

CLICKS = 2
ROOT = Path(__file__).resolve().parents[2]
START = "README.md"
# What newcomers want, and the section that says how.
TASKS = {
    "try a hook without a cluster": "README.md#quick-start",
    "write a hook": "docs/writing-hooks.md#write-it",
    "test it": "docs/cases.md#your-first-case",
    "deploy a script from a ConfigMap": "docs/deploying.md#a-script-from-a-configmap",
    "deploy an image as a hook sidecar": "docs/deploying.md#a-custom-image",
    "deploy a plugin": "docs/deploying.md#a-plugin",
    "deploy a network binding": "docs/network-binding.md#install-it",
    "read an error": "docs/errors.md#calls-that-fail",
    "watch hooks": "docs/observing.md#status",
    "migrate from the Go sidecar-shim": "docs/migrating.md#from-the-go-sidecar-shim",
}


def links(page):
    """Yields the links of a page, each with its text and with the section or page that it leads to."""
    parser = MarkdownIt("commonmark").enable("table")
    for token in parser.parse((ROOT / page).read_text(encoding="utf-8")):
        target, text = None, ""
        for part in token.children or []:
            if part.type == "link_open":
                target, text = resolve(ROOT / page, part.attrs["href"], ROOT), ""
            elif part.type == "link_close" and target:
                file, anchor = target
                yield text, str(file.relative_to(ROOT)) + ("#" + anchor if anchor else "")
                target = None
            elif part.type in ("text", "code_inline", "softbreak"):
                text += part.content or " "


def clicks(target):
    """Returns the shortest way to a section, as the clicks, or nothing."""
    ways = {START: []}
    if target.partition("#")[0] == START:
        return []
    for _ in range(CLICKS):
        for page, way in list(ways.items()):
            file = page.partition("#")[0]
            if not file.endswith(".md"):
                continue
            for text, to in links(file):
                if to not in ways:
                    ways[to] = [*way, f"[{text}] → {to}"]
        if target in ways:
            return ways[target]
    return None


def main():
    """Prints the clicks of each task."""
    pages = repository_pages(ROOT)
    faults = []
    for task, target in TASKS.items():
        file, _, anchor = target.partition("#")
        if anchor not in pages[ROOT / file][0]:
            faults.append(f"{task}: there is no section {target}")
            continue
        way = clicks(target)
        if way is None:
            faults.append(f"{task}: no {CLICKS} clicks lead from {START} to {target}")
        else:
            print(f"{task}: {', then '.join(way) or 'on the first page'}")
    sys.exit("\n".join(faults) or 0)


main()
