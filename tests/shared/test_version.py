"""Both commands say which version they are of."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", ["sspa-knowledge", "sspa-train"])
def test_the_version_is_the_package_s(command: str) -> None:
    ended = subprocess.run([Path(sys.executable).parent / command, "--version"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"sspa {version('sspa-multilabel')}\n"
