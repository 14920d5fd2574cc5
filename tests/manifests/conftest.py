import os
import tempfile
from pathlib import Path

import pytest

import api


@pytest.fixture(scope="session")
def shim():
    """The program under test: $SIDECAR_SHIM, which `.ci/manifests` sets."""
    path = Path(os.environ.get("SIDECAR_SHIM", api.ROOT / "target/debug/sidecar-shim"))
    assert path.is_file(), f"{path} is not there: run .ci/manifests, or cargo build"
    return path.resolve()


@pytest.fixture
def directory():
    """An empty one. Not pytest's tmp_path: a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="shim-") as path:
        yield Path(path)
