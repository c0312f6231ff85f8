"""Temporary folders that do not stay behind: one that a killed process left is deleted by the next process.

A process holds a shared lock on its folder as long as it lives, however it ends. Whoever gets an exclusive lock
therefore knows that the folder is abandoned.
"""

import fcntl
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

ENDING = ".tmp"
# What mkdtemp puts between prefix and ending.
_RANDOM = "[a-z0-9_]" * 8


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new private folder in `parent`, deleted after the block unless it was moved away.

    Deletes abandoned ones with the same prefix first.

    Raises:
        OSError: the folder cannot be created.
    """
    parent.mkdir(parents=True, exist_ok=True)
    delete_abandoned(parent, prefix)
    folder, lock = _new(parent, prefix)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)
        os.close(lock)


def delete_abandoned(parent: Path, prefix: str = ".") -> list[Path]:
    """Delete the temporary folders in `parent` whose processes have ended; returns which."""
    deleted = []
    for folder in parent.glob(f"{glob.escape(prefix)}*{_RANDOM}{ENDING}"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # gone already, or another user's
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            rmtree(folder, ignore_errors=True)
            deleted.append(folder)
        except OSError:
            continue  # in use, or on a file system without locks
        finally:
            os.close(lock)
    return deleted


def _new(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder, and the open file that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix, suffix=ENDING))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            # Without locks, nobody else can take one and delete it either.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_SH)
            if folder.exists():
                return folder, lock
            os.close(lock)
        # Another process took it for abandoned, between its creation and its lock.
