import os
import tempfile
from pathlib import Path

import pytest

import api


def program(variable, name):
    """A program that `cargo build` makes. `.ci/manifests` sets the variable."""
    path = Path(os.environ.get(variable, api.ROOT / "target/debug" / name))
    assert path.is_file(), f"{path} is not there: run .ci/manifests, or cargo build"
    return path.resolve()


@pytest.fixture(scope="session")
def shim():
    """The program under test."""
    return program("SIDECAR_SHIM", "sidecar-shim")


@pytest.fixture(scope="session")
def hookctl():
    """The tool that calls it."""
    return program("HOOKCTL", "hookctl")


@pytest.fixture
def directory():
    """An empty one. Not pytest's tmp_path: a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="shim-") as path:
        yield Path(path)
