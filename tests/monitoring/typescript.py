"""TypeScript's compiler as a judge: what it says of programs with our documents in them."""

import re
import subprocess

from common import fail


def compiles(modules, directory, programs):
    """Whether each of these programs fits the types, by its name."""
    for name, text in programs.items():
        (directory / f"{name}.ts").write_text(text, encoding="utf-8")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "preserve", "--moduleResolution", "bundler",
               "--target", "es2022", "--pretty", "false", "--types", ""]
    link = directory / "node_modules"
    if not link.exists():
        link.symlink_to(modules)
    files = [f"{name}.ts" for name in programs]
    done = subprocess.run([modules / ".bin/tsc", *options, *files], cwd=directory, capture_output=True, text=True, timeout=120)
    errors = done.stdout + done.stderr
    if foreign := [line for line in errors.splitlines() if re.match(r"error|[^ ]*node_modules", line)]:
        fail(f"tsc: {foreign}")
    return {name: "\n".join(line for line in errors.splitlines() if line.startswith(f"{name}.ts")) for name in programs}
