#!/usr/bin/env python3
"""Writes the test vectors beside this file; with --check, says whether they are up to date.

What a vector expects is written down in frames.py and sessions.py by hand: nothing here runs a worker.
README.md says what the files hold.
"""

import json
import pathlib
import sys

import frames
import sessions

HERE = pathlib.Path(__file__).parent


def files():
    """Every file of the vectors: its path and its bytes."""
    for name, stream, facts in frames.ALL:
        yield HERE / "frames" / f"{name}.bin", stream
        yield HERE / "frames" / f"{name}.json", readable(facts)
    for name, session in sessions.ALL.items():
        yield HERE / "sessions" / f"{name}.in", session.input
        yield HERE / "sessions" / f"{name}.out", session.output
        yield HERE / "sessions" / f"{name}.json", readable(session.facts())


def readable(facts):
    return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()


def main():
    wanted = dict(files())
    found = {path for kind in ("frames", "sessions") for path in (HERE / kind).glob("*")}
    if sys.argv[1:] == ["--check"]:
        wrong = {path for path, data in wanted.items() if path not in found or path.read_bytes() != data}
        for path in sorted(wrong | (found - set(wanted))):
            print(f"not as generate.py writes it: {path.relative_to(HERE)}", file=sys.stderr)
        return 1 if wrong or found - set(wanted) else 0
    if sys.argv[1:]:
        print("usage: generate.py [--check]", file=sys.stderr)
        return 2
    for path in found - set(wanted):
        path.unlink()
    for path, data in wanted.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
