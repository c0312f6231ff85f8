"""The folder of a demo's uploads: private, bounded in size, and gone when the demo ends, however it ends."""

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from sspa.shared.terminal import say

_PREFIX = "sspa-demo-"
_LOCK = ".lock"


class Uploads:
    """Uploaded files below `folder`, of at most `largest_total` bytes together."""

    def __init__(self, folder: Path, largest_total: int) -> None:
        self.folder, self.largest_total = folder.resolve(), largest_total

    def contains(self, path: str) -> bool:
        """Whether `path` is an uploaded file: a regular file below the folder, also after following links."""
        try:
            real = Path(path).resolve()
            return real.is_relative_to(self.folder) and real.name != _LOCK and real.is_file()
        except (OSError, ValueError):
            return False

    def make_room(self, size: int) -> None:
        """Delete the oldest uploads until `size` more bytes fit."""
        files = []
        for path in self.folder.rglob("*"):
            try:
                if path.is_file() and path.name != _LOCK:
                    about = path.stat()
                    files.append((about.st_mtime_ns, about.st_size, path))
            except FileNotFoundError:
                continue
        total = size + sum(taken for _, taken, _ in files)
        for _, taken, path in sorted(files):
            if total <= self.largest_total:
                return
            path.unlink(missing_ok=True)
            total -= taken


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A new folder for uploads, deleted at the end of the block; SIGTERM ends the block too.

    What a demo left behind that was killed is deleted first.
    """
    _sweep()
    with _ended_by_sigterm():
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = FileLock(folder / _LOCK)
        try:
            lock.acquire(timeout=0)
            yield folder
        finally:
            lock.release()
            shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Delete the folders of demos that no longer run."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            with FileLock(folder / _LOCK, timeout=0):
                say(f"deleting the uploads that an earlier demo left in {folder}")
                shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):
            continue  # of a demo that runs, or of another user


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Within the block SIGTERM unwinds the stack instead of ending the process where it stands."""

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # only the main thread may set handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
