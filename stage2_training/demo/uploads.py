"""The folder of a demo's uploads: private, bounded in size, and gone when the demo ends, however it ends."""

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sspa.shared.temporary_folders import delete_abandoned, temporary_folder
from sspa.shared.terminal import say

_PREFIX = "sspa-demo-"


class Uploads:
    """Uploaded files below `folder`, of at most `largest_total` bytes together."""

    def __init__(self, folder: Path, largest_total: int) -> None:
        self.folder, self.largest_total = folder.resolve(), largest_total

    def contains(self, path: str) -> bool:
        """Whether `path` is an uploaded file: a regular file below the folder, also after following links."""
        try:
            real = Path(path).resolve()
            return real.is_relative_to(self.folder) and real.is_file()
        except (OSError, ValueError):
            return False

    def make_room(self, size: int) -> None:
        """Delete the oldest uploads until `size` more bytes fit."""
        files = []
        for path in self.folder.rglob("*"):
            try:
                if path.is_file():
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
    parent = Path(tempfile.gettempdir())
    for folder in delete_abandoned(parent, _PREFIX):
        say(f"deleted the uploads that an earlier demo left in {folder}")
    with _ended_by_sigterm(), temporary_folder(parent, _PREFIX) as folder:
        yield folder


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
