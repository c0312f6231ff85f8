"""Who may write an output: one process at a time, and the second one is told who that is."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sspa.shared.errors import UserError


@contextmanager
def held(output: Path) -> Iterator[None]:
    """Hold the output for this process; the lock dies with it, however it dies.

    Raises:
        UserError: another run holds it, or its folder cannot be written.
    """
    lock = FileLock(output.with_name(f".{output.name}.lock"))
    holder = output.with_name(f".{output.name}.holder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{output}: {_who(holder)} is writing it; wait for it, or choose another --output") from error
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from error
    try:
        try:
            holder.write_text(f"process {os.getpid()} on {platform.node()}")
        except OSError as error:
            raise UserError(f"{output}: cannot be written ({error.strerror}); nothing was changed") from error
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _who(holder: Path) -> str:
    try:
        return holder.read_text().strip() or "another run"
    except FileNotFoundError:
        # It ended, or has only just begun.
        return "another run"
