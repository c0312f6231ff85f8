"""The real `sspa-train demo` as a process, on any free port, with small limits."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .page_server import serving


@contextmanager
def served(run: Path, folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The page's address and the process; see `serving`."""
    options = ("--port", "0", "--max-megabytes", "0.1", "--max-megapixels", "0.05")
    with serving(["demo", run, *options], folder) as started:
        yield started


def memory_of(process: "subprocess.Popen[bytes]") -> int:
    """The process's resident memory, in bytes (on Linux)."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
