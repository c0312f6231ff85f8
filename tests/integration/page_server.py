"""A page that `sspa-train` serves, as a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Generous: what else a machine does must not fail a test.
_STARTS_WITHIN_S = 300


@contextmanager
def serving(arguments: list[str | Path], folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The page's address and the process, whose messages go to said.txt in `folder`."""
    said = folder / "said.txt"
    with said.open("w") as file:
        command = subprocess.Popen(
            [Path(sys.executable).parent / "sspa-train", *arguments],
            stderr=file,
            cwd=folder,
            env={**os.environ, "SSPA_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
        )
    try:
        yield _address(said, command), command
    finally:
        command.terminate()
        command.wait(30)


def _address(said: Path, command: "subprocess.Popen[bytes]") -> str:
    end = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < end and command.poll() is None:
        for line in said.read_text().splitlines():
            if line.startswith("page: "):
                return line.split()[1]
        time.sleep(0.2)
    raise AssertionError(said.read_text())
