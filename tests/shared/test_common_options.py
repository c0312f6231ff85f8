"""Both commands say which version they are of, and keep things where they are told to."""

import os
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


@pytest.mark.parametrize("by_option", [True, False])
def test_the_cache_is_where_an_option_or_the_environment_says(by_option: bool, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    option = ["--cache", "elsewhere"] if by_option else []
    ended = subprocess.run(
        [Path(sys.executable).parent / "sspa-train", *option, "cache"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "SSPA_CACHE": str(tmp_path / "ignored" if by_option else place)},
    )
    assert ended.returncode == 0, ended.stderr
    assert f"{place / 'features'}: 0 entries" in "".join(ended.stderr.splitlines())
    assert not (tmp_path / "ignored").exists()
