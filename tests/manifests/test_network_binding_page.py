"""What docs/network-binding.md shows is in the files that the other tests check, and its commands print what
it says."""

import os
import re
import shlex
import subprocess
import textwrap

import pytest

import api
from test_running import DEADLINE, ENVIRONMENT

PAGE = (api.ROOT / "docs/network-binding.md").read_text()
BLOCKS = [
    (language, textwrap.dedent(text))
    for language, text in re.findall(r"^ *```(\w+)\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
]
FILES = {"yaml": "network-binding.yaml", "dockerfile": "network-binding.Dockerfile"}
COMMANDS = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]


def indented(text):
    """Every way in which a text that begins a line can be indented in a file, up to YAML's depth here."""
    return [textwrap.indent(text, " " * depth) for depth in range(0, 17, 2)]


def test_the_blocks_are_found():
    assert {language for language, _ in BLOCKS} == {"sh", "diff", "text", *FILES}
    assert len(COMMANDS) == 7


@pytest.mark.parametrize("language, text", [each for each in BLOCKS if each[0] in FILES])
def test_a_snippet_is_part_of_its_file(language, text):
    content = "\n" + (api.MANIFESTS / FILES[language]).read_text()
    assert any("\n" + each in content for each in indented(text)), text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_files_that_are_there(command):
    words = shlex.split(command)
    assert words[0] in ("docker", "hookctl", "kubectl")
    for word in words:
        if word.startswith(("examples/", "tests/", "docs/")):
            assert (api.ROOT / word).exists(), word
    if words[0] == "docker":
        assert command in (api.MANIFESTS / "README.md").read_text().splitlines()


def test_the_names_in_commands_are_those_of_the_manifest():
    metadata = api.the("network-binding", "VirtualMachine")["metadata"]
    (logs,) = [command for command in COMMANDS if command.startswith("kubectl logs")]
    for part in (f"--namespace {metadata['namespace']}", f"vm.kubevirt.io/name={metadata['name']}"):
        assert part in logs
    assert f"kubectl create namespace {metadata['namespace']}" in COMMANDS


def test_hookctl_prints_what_the_page_says(hookctl):
    calls = [at for at, (language, text) in enumerate(BLOCKS) if language == "sh" and text.startswith("hookctl")]
    statuses = []
    for at in calls:
        path = f"{hookctl.parent}:{os.environ['PATH']}"
        # In a shell, as the reader runs it.
        done = subprocess.run(
            ["sh", "-c", BLOCKS[at][1]],
            cwd=api.ROOT,
            env={**ENVIRONMENT, "PATH": path},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        language, expected = BLOCKS[at + 1]
        if language == "diff":
            changes = [line for line in done.stderr.splitlines() if re.match(r"[+-](?![+-])", line)]
            assert changes == expected.splitlines()
        else:
            assert expected.strip() in done.stderr
        statuses.append(done.returncode)
    assert statuses == [0, 1]


def test_the_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        page = (api.ROOT / "docs" / path).resolve() if path else api.ROOT / "docs/network-binding.md"
        assert page.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings], target
