"""Locks: one process at a time writes a file or a folder, and a second one is told which process that is."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sspa.shared.errors import UserError
from sspa.shared.temporary_folders import delete_abandoned


@contextmanager
def held(path: Path, remedy: str, inside: bool = False) -> Iterator[None]:
    """Lock `path` for this process; the lock ends with the process, however it ends.

    Deletes what a killed process left half-written of `path`, or in it if the lock lies inside.

    Args:
        path: a file, existing or not, or a folder.
        remedy: what a second process is told to do, such as "wait for it".
        inside: `path` is an existing folder, and the lock file lies in it instead of beside it.

    Raises:
        UserError: another process holds the lock, or the folder is not writable.
    """
    folder, name = (path, "") if inside else (path.parent, f".{path.name}")
    lock_file, holder = folder / f"{name}.lock", folder / f"{name}.holder"
    lock = FileLock(lock_file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # filelock takes a folder that cannot be written for one whose lock another process is just removing.
        lock_file.touch()
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{path}: {_who(holder)} is writing it; {remedy}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        try:
            holder.write_text(f"process {os.getpid()} on {platform.node()}")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); nothing was changed") from error
        delete_abandoned(folder, f"{name}.")
        yield
    finally:
        holder.unlink(missing_ok=True)
        # Before the release: filelock notices if the file that another process has just opened was removed.
        lock_file.unlink(missing_ok=True)
        lock.release()


def _who(holder: Path) -> str:
    try:
        return holder.read_text().strip() or "another process"
    except FileNotFoundError:
        # That process has just ended, or just started.
        return "another process"
