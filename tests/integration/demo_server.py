"""The real `sspa-train demo` as a process, on any free port, with small limits."""

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
def served(run: Path, folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The page's address and the process, whose messages go to said.txt in `folder`."""
    said = folder / "said.txt"
    options = ("--port", "0", "--max-megabytes", "0.1", "--max-megapixels", "0.05")
    with said.open("w") as file:
        command = subprocess.Popen(
            [Path(sys.executable).parent / "sspa-train", "demo", run, *options],
            stderr=file,
            cwd=folder,
            env={**os.environ, "SSPA_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
        )
    try:
        yield _address(said, command), command
    finally:
        command.terminate()
        command.wait(30)


def memory_of(process: "subprocess.Popen[bytes]") -> int:
    """The process's resident memory, in bytes (on Linux)."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _address(said: Path, command: "subprocess.Popen[bytes]") -> str:
    end = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < end and command.poll() is None:
        for line in said.read_text().splitlines():
            if line.startswith("page: "):
                return line.split()[1]
        time.sleep(0.2)
    raise AssertionError(said.read_text())
