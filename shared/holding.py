"""Who may write a file or a folder: one process at a time, and the second one is told who that is."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sspa.shared.errors import UserError


@contextmanager
def held(path: Path, remedy: str, inside: bool = False) -> Iterator[None]:
    """Hold `path` for this process; the lock dies with it, however it dies.

    Args:
        path: a file, there or not yet, or a folder.
        remedy: what a second process is told to do, "wait for it".
        inside: `path` is a folder that exists; the lock lies in it and not beside it.

    Raises:
        UserError: another process holds it, or its folder cannot be written.
    """
    folder, name = (path, "") if inside else (path.parent, f".{path.name}")
    lock_file, holder = folder / f"{name}.lock", folder / f"{name}.holder"
    lock = FileLock(lock_file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
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
        yield
    finally:
        holder.unlink(missing_ok=True)
        # Before the release: a process that opened it meanwhile is told by filelock that it is gone.
        lock_file.unlink(missing_ok=True)
        lock.release()


def _who(holder: Path) -> str:
    try:
        return holder.read_text().strip() or "another process"
    except FileNotFoundError:
        # It ended, or has only just begun.
        return "another process"
