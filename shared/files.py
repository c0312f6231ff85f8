"""Atomic writes, and checksums."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.temporary_folders import ENDING, temporary_folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; when the block succeeds, it replaces `path`.

    The bytes are flushed to disk before the rename, so that after a crash the file holds either the old
    content or the new, never part of it. If the block raises, the old file is unchanged. What a killed process
    left half-written is deleted when the same file is next written.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    with _reported(path), temporary_folder(path.parent, f".{path.name}.") as folder:
        beside = folder / path.name
        yield beside
        # safetensors creates private files; the finished one gets the mode of any new file.
        beside.chmod(0o666 & ~_umask(folder))
        _flush(beside)
        beside.replace(path)
        _flush(path.parent)


@contextmanager
def replacing_folder(path: Path, keep_theirs: bool = False) -> Iterator[Path]:
    """Like `replacing`, for a folder that is built once: `path` appears complete or not at all.

    Args:
        path: the folder, which does not exist yet, or is empty.
        keep_theirs: if another process finishes the same folder first, keep its copy and discard ours.

    Raises:
        UserError: as in `replacing`; or another process finished it first.
    """
    with _reported(path), temporary_folder(path.parent, f".{path.name}.") as beside:
        try:
            yield beside
        except UserError as error:
            raise UserError(str(error).replace(str(beside), str(path))) from error
        beside.chmod(0o777 & ~_umask(beside))
        for file in beside.rglob("*"):
            _flush(file)
        try:
            beside.replace(path)
        except OSError as error:
            if not path.is_dir():
                raise
            if not keep_theirs:
                raise UserError(f"{path}: was written meanwhile by another process; it is kept") from error
        _flush(path.parent)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({_reason(error)}); nothing was changed") from error


def _reason(error: OSError) -> str:
    """What the system says, and which file is missing; other errors name temporary files, or a copy's source."""
    missing = isinstance(error, FileNotFoundError) and ENDING not in str(error.filename)
    return f"{error.strerror}: {error.filename}" if missing else str(error.strerror or error)


def check_sha256(path: Path, expected: str, package: str) -> None:
    """Hold a file of a package to the checksum that this program knows.

    Raises:
        UserError: it is another file, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); install {package} again") from error
    if found != expected:
        raise UserError(
            f"{path}: has the checksum {found[:12]}..., not {expected[:12]}...; install {package} again, from an index "
            "that you trust"
        )


def _umask(folder: Path) -> int:
    """What new files do not allow. Not asked with os.umask, which changes it for a moment, in all threads."""
    probe = folder / ".mode"
    handle = os.open(probe, os.O_CREAT | os.O_EXCL, 0o777)
    try:
        return 0o777 & ~os.fstat(handle).st_mode
    finally:
        os.close(handle)
        probe.unlink()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
