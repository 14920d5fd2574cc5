#!/usr/bin/env python3
"""Draws the pictures of the tour: it runs each command in a terminal, and draws what that shows.

`--check` runs the commands too, and says whether the pictures would change in more than numbers. Needs `pyte`, and
hookctl and sidecar-shim in target/debug or in the directory that `--bin` names.
"""

import argparse
import fcntl
import os
import pathlib
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from xml.sax.saxutils import escape

import pyte

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parents[1]
COLUMNS, LINES = 92, 200
LIMIT = 120  # seconds for a command
CELL, STEP, MARGIN = 7.83, 17, 16  # of a character of 13 pixels
PAPER, INK, DIM, PROMPT = "#16191f", "#d6dbe3", "#8a94a3", "#7fb2ff"
COLORS = {"red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "blue": "#79c0ff", "magenta": "#d2a8ff", "cyan": "#76e3ea"}

# A hook with which a pool has something to show. Its annotation says what it does.
BUSY = """
import time
from kubevirt_hook import Refused, Worker

hook = Worker("rack", "2.1.0")


@hook.edit_domain
def place(vmi, doc):
    if vmi.annotation("rack") == "far":
        time.sleep(600)
    if vmi.annotation("rack") == "none":
        raise Refused("no rack is free")
    doc.ensure("sysinfo[@type='smbios']/chassis/entry[@name='location']").text = "R12"


hook.run()
"""


class Session:
    """Commands in one directory, and what they print."""

    def __init__(self, directory, programs):
        self.directory = directory
        self.lines = []
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(directory), "TERM": "xterm-256color", "LANG": "C.UTF-8",
            "COLUMNS": str(COLUMNS), "LINES": "50", "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, command, *, status=0, until=None):
        """Runs a command, which must exit with this status. What it prints is shown until the line with `until`."""
        screen = pyte.Screen(COLUMNS, LINES)
        stream = pyte.ByteStream(screen)
        parent, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=self.directory, env=self.environment, stdin=child, stdout=child, stderr=child,
            start_new_session=True,
        )
        os.close(child)
        signal.alarm(LIMIT)
        while True:
            try:
                output = os.read(parent, 65536)
            except OSError:  # the other end is closed
                break
            if not output:
                break
            stream.feed(output)
        os.close(parent)
        if process.wait() != status:
            sys.exit(f"{command}: exit status {process.returncode}\n" + "\n".join(screen.display).rstrip())
        signal.alarm(0)
        rows = [[screen.buffer[y][x] for x in range(COLUMNS)] for y in range(LINES)]
        while rows and all(cell.data == " " for cell in rows[-1]):
            rows.pop()
        self.lines += command.split("\n")
        if until:
            rows = rows[: next(y for y in range(LINES) if until in screen.display[y])]
        self.lines += rows
        if until:
            self.lines.append("…")
        self.lines.append("")

    def svg(self, title):
        lines = self.lines[:-1]
        width, height = round(COLUMNS * CELL + 2 * MARGIN), len(lines) * STEP + 2 * MARGIN
        body = []
        for number, line in enumerate(lines):
            y = MARGIN + number * STEP + 13
            for x, text, color, bold in spans(line):
                weight = ' font-weight="700"' if bold else ""
                length = f' textLength="{len(text) * CELL:.1f}" lengthAdjust="spacingAndGlyphs"'
                text = escape(text).replace(" ", "\u00a0")  # or browsers make one of several
                body.append(f'<text x="{MARGIN + x * CELL:.1f}" y="{y}" fill="{color}"{weight}{length}>{text}</text>')
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
            ' font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="13">\n'
            f"<title>{escape(title)}</title>\n"
            f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>\n' + "\n".join(body) + "\n</svg>\n"
        )


def spans(line):
    """The parts of a line that have one look: column, text, colour, and whether they are bold."""
    if isinstance(line, str):
        if line in ("", "…"):
            return [(0, line, DIM, False)] if line else []
        return [(0, "  " if line.startswith(" ") else "$ ", PROMPT, True), (2, line, "#ffffff", True)]
    found, start = [], 0
    look = lambda cell: (COLORS.get(cell.fg, INK), cell.bold)  # noqa: E731
    for column in range(1, COLUMNS + 1):
        if column == COLUMNS or look(line[column]) != look(line[start]):
            text = "".join(cell.data for cell in line[start:column])
            blanks = len(text) - len(text.lstrip())
            if text.strip():
                found.append((start + blanks, text.strip(), *look(line[start])))
            start = column
    return found


def session(directory, programs):
    """From nothing to manifests."""
    terminal = Session(directory, programs)
    terminal.run("hookctl init asset-tag --lang python", until="Next:")
    terminal.directory = directory / "asset-tag"
    terminal.run("hookctl call onDefineDomain --vmi cases/asset-tag/vmi.json -- python3 hook.py")
    terminal.run("hookctl test -- python3 hook.py")
    image = "registry.example/asset-tag@sha256:" + 16 * "5f0c"
    terminal.environment["IMAGE"] = image
    terminal.run(
        "hookctl generate plugin --name asset-tag --image $IMAGE \\\n"
        "    --annotation example.org/asset-tag -- python3 hook.py >plugin.yaml"
    )
    terminal.run("grep kind: plugin.yaml")
    return terminal.svg("hookctl init, call, test and generate")


def check(directory, programs):
    terminal = Session(directory, programs)
    subprocess.run([programs / "hookctl", "init", "asset-tag", "--lang", "python"], cwd=directory, check=True, capture_output=True)
    terminal.directory = directory / "asset-tag"
    terminal.run("hookctl check --skip memory --vmi cases/asset-tag/vmi.json -- python3 hook.py")
    return terminal.svg("hookctl check")


def test(directory, programs):
    """A case that no longer holds."""
    terminal = Session(directory, programs)
    subprocess.run([programs / "hookctl", "init", "asset-tag", "--lang", "python"], cwd=directory, check=True, capture_output=True)
    terminal.directory = directory / "asset-tag"
    terminal.run("sed -i 's/text = tag/text = tag.lower()/' hook.py")
    terminal.run("hookctl test -- python3 hook.py", status=1)
    return terminal.svg("hookctl test with a changed hook")


def status(directory, programs):
    terminal = Session(directory, programs)
    (directory / "rack.py").write_text(BUSY)
    for module in ("kubevirt_hook.py", "kubevirt_xml.py"):
        (directory / module).symlink_to(ROOT / "sdk/python" / module)
    command = ["sidecar-shim", "--plugin-socket", "hook.sock", "--mode", "persistent", "--max-workers", "2", "--", "python3", "rack.py"]
    options = {"cwd": directory, "env": terminal.environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **options) as shim:
        try:
            wait(lambda: subprocess.run(["sidecar-shim", "health", "--socket", "hook.sock"], **options).returncode == 0)
            call = ["hookctl", "call", "onDefineDomain", "--context", "Boot", "--socket", "hook.sock"]
            for rack in ("near", "near", "none", "near"):
                subprocess.run([*call, "--annotation", f"rack={rack}"], check=rack != "none", **options)
            with subprocess.Popen([*call, "--annotation", "rack=far"], **options) as far:
                ask = ["sidecar-shim", "status", "--socket", "hook.sock", "--json"]
                wait(lambda: b'"busy"' in subprocess.run(ask, **{**options, "stdout": subprocess.PIPE}).stdout)
                # Paths of files are those of this machine.
                terminal.run("sidecar-shim status --socket hook.sock", until="FILES")
                far.terminate()
        finally:
            shim.terminate()
    return terminal.svg("sidecar-shim status")


def wait(happens):
    """Waits until something has happened."""
    end = time.monotonic() + LIMIT
    while not happens():
        if time.monotonic() > end:
            sys.exit("the shim does not get there")
        time.sleep(0.05)


PICTURES = {"session.svg": session, "check.svg": check, "test.svg": test, "status.svg": status}


def words(svg):
    """What a picture says, without numbers and their order: times, process ids and memory differ from run to run."""
    texts = [text.replace("\u00a0", " ") for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]
    return sorted(" ".join(re.sub(r"\d+(\.\d+)?( (ms|s|B|KiB|MiB)\b)?", "0", text).split()) for text in texts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/debug")
    options = parser.parse_args()
    outdated = []
    for name, draw in PICTURES.items():
        with tempfile.TemporaryDirectory(prefix="tour-") as directory:
            svg, file = draw(pathlib.Path(directory), options.bin.resolve()), FOLDER / name
        if not options.check:
            file.write_text(svg, encoding="utf-8")
        elif not file.exists() or words(file.read_text(encoding="utf-8")) != words(svg):
            outdated.append(name)
    if outdated:
        sys.exit(f"run docs/pictures/terminal.py: {', '.join(outdated)} would change")


if __name__ == "__main__":
    main()
