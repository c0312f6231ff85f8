"""What libraries print while they load does not reach the user, unless something fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, since pytest has streams that are not those of the system.
PROGRAM = """
import os, subprocess, sys
from sspa.shared.library_noise import quiet
from sspa.shared.terminal import say

print("before")
try:
    with quiet("loading", "noise"):
        print("by Python")
        print("a warning", file=sys.stderr)
        os.write(2, b"by C++\\n")
        subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
        {ending}
except {error}:
    print("caught")
print("and on")
say("after")
"""


def run(cache: Path, ending: str, error: str) -> tuple[str, str]:
    """What the program prints to standard output and error."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ending=ending, error=error)],
        env={**os.environ, "SSPA_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout, ended.stderr


def test_nothing_of_it_is_seen_and_everything_else_is(tmp_path: Path) -> None:
    assert run(tmp_path, "pass", "RuntimeError") == ("before\nand on\n", "after\n")
    assert list(tmp_path.rglob("*.log")) == []


def test_a_failure_names_the_file_that_has_it(tmp_path: Path) -> None:
    output, messages = run(tmp_path, "raise RuntimeError", "RuntimeError")
    (file,) = tmp_path.rglob("*.log")
    assert output == "before\ncaught\nand on\n"
    assert messages == f"what was printed meanwhile: {file}\nafter\n"
    assert sorted(file.read_text().splitlines()) == ["a warning", "by C++", "by Python", "by a child"]


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
def test_an_end_that_someone_wants_is_no_failure(tmp_path: Path, error: str) -> None:
    assert run(tmp_path, f"raise {error}", error) == ("before\ncaught\nand on\n", "after\n")
    assert list(tmp_path.rglob("*.log")) == []
