#!/usr/bin/env python3
"""Draws the pictures of the documents: shim.svg and worker.svg. `--check` only says whether they are up to date."""

import pathlib
import sys
from xml.sax.saxutils import escape

INK, LINE, PALE, CARD = "#1f2933", "#64748b", "#eef2f7", "#ffffff"
SHIM, WORKER, KUBEVIRT = "#b7410e", "#0b6e4f", "#23527c"


class Picture:
    """An SVG with a light background, so that it can be read on light and on dark pages."""

    def __init__(self, width, height, title):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def box(self, x, y, width, height, color=LINE, fill=CARD, dash=""):
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{color}"'
            f' stroke-width="2"{f" stroke-dasharray={chr(34)}{dash}{chr(34)}" if dash else ""}/>'
        )

    def text(self, x, y, text, *, size=15, color=INK, anchor="middle", kind=""):
        """Writes text; kind is "b" for bold and "m" for monospaced."""
        style = {"b": ' font-weight="600"', "m": ' font-family="ui-monospace,Menlo,Consolas,monospace"', "": ""}[kind]
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{style}>{escape(text)}</text>'
        )

    def line(self, x1, y1, x2, y2, *, color=LINE, dash="", head="end"):
        ends = {"end": ' marker-end="url(#head)"', "both": ' marker-start="url(#head)" marker-end="url(#head)"', "": ""}
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{color}" stroke-width="2"{dash}{ends[head]}/>')

    def svg(self):
        head = (
            '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
            f' orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{LINE}"/></marker>'
        )
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}"'
            f' height="{self.height}" role="img" font-family="system-ui,-apple-system,Segoe UI,Roboto,sans-serif">\n'
            f"<title>{escape(self.title)}</title>\n<defs>{head}</defs>\n"
            f'<rect width="{self.width}" height="{self.height}" rx="12" fill="{CARD}"/>\n{body}\n</svg>\n'
        )


def shim():
    """The pod of a VM: who calls whom."""
    picture = Picture(800, 290, "A VM's pod: KubeVirt calls the shim, and the shim calls the hooks")
    picture.box(20, 20, 760, 250, fill=PALE)
    picture.text(40, 46, "virt-launcher pod: one for each VM", size=14, color=LINE, anchor="start")
    picture.box(40, 64, 190, 180, KUBEVIRT)
    picture.text(135, 94, "compute", kind="b", color=KUBEVIRT)
    picture.text(135, 120, "KubeVirt's virt-launcher", size=13)
    picture.text(135, 152, "libvirt domain,", size=13)
    picture.text(135, 172, "cloud-init data", size=13)
    picture.text(135, 214, "libvirt and QEMU", size=13, color=LINE)
    picture.box(370, 64, 390, 180, SHIM, dash="6 4")
    picture.text(565, 86, "hook sidecar", size=14, color=LINE)
    picture.box(390, 100, 140, 124, SHIM)
    picture.text(460, 132, "sidecar-shim", kind="b", color=SHIM)
    picture.text(460, 160, "deadlines, checks,", size=13)
    picture.text(460, 180, "retries, log", size=13)
    for y, name in ((100, "worker"), (170, "worker")):
        picture.box(620, y, 120, 54, WORKER)
        picture.text(680, y + 24, name, kind="b", color=WORKER)
        picture.text(680, y + 43, "your hook", size=13)
    picture.line(232, 162, 388, 162, head="both")
    picture.text(300, 140, "gRPC", kind="b")
    picture.text(300, 184, "Unix socket", size=13)
    picture.line(532, 140, 618, 127, head="both")
    picture.line(532, 184, 618, 197, head="both")
    picture.text(575, 166, "pipes", size=13)
    return picture.svg()


def worker():
    """What the shim and a worker send to each other."""
    steps = [
        ("shim", "starts the process with KUBEVIRT_HOOK_PROTOCOL=1", ""),
        ("shim", "request 1: initialize", "m"),
        ("worker", "result 1: protocolVersion 1, hooks", "m"),
        None,
        ("shim", "request 2: onDefineDomain, vmi, domain", "m"),
        ("note", "$/log: a line for the log, at any time", "m"),
        ("worker", "result 2: domain  (or error 2)", "m"),
        ("shim", "request 3: …, one at a time", "m"),
        ("worker", "result 3", "m"),
        None,
        ("shim", "closes stdin: EOF", ""),
        ("worker", "exits with status 0", ""),
    ]
    left, right, step = 110, 610, 34
    bottom = 70 + step * len(steps) + 10
    picture = Picture(720, bottom + 20, "The messages between the shim and a worker")
    for x, name, color in ((left, "shim", SHIM), (right, "worker", WORKER)):
        picture.box(x - 70, 16, 140, 34, color)
        picture.text(x, 39, name, kind="b", color=color)
        picture.line(x, 50, x, bottom, dash="4 4", head="")
    for number, entry in enumerate(steps):
        if entry is None:
            continue
        by, text, kind = entry
        y = 90 + step * number
        ends = (left + 4, right - 4) if by == "shim" else (right - 4, left + 4)
        picture.line(ends[0], y, ends[1], y, dash="5 4" if by == "note" else "")
        picture.text((left + right) / 2, y - 7, text, size=14, kind=kind)
    return picture.svg()


def main():
    folder = pathlib.Path(__file__).parent
    outdated = []
    for name, draw in (("shim.svg", shim), ("worker.svg", worker)):
        file, text = folder / name, draw()
        if sys.argv[1:] == ["--check"]:
            outdated += [name] if not file.exists() or file.read_text() != text else []
        else:
            file.write_text(text)
    if outdated:
        sys.exit(f"run docs/pictures/draw.py: {', '.join(outdated)} would change")


main()
