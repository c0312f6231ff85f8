"""Atomic writes, and the cache folder."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from sspa.shared.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; when the block succeeds, it replaces `path`.

    The bytes are flushed to disk before the rename, so that after a crash the file holds either the old
    content or the new, never part of it. If the block raises, the old file is unchanged.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    beside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        beside = Path(name)
        os.close(handle)
        yield beside
        # mkstemp and safetensors create private files; the finished one gets the mode of any new file.
        beside.chmod(0o666 & ~_umask())
        _flush(beside)
        beside.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); nothing was changed") from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Like `replacing`, for a folder that is built once: `path` appears complete or not at all.

    If another process finishes the same folder first, its copy is kept and ours is discarded.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    try:
        yield beside
        beside.chmod(0o777 & ~_umask())
        try:
            beside.replace(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


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


def cache_folder(name: str) -> Path:
    """The folder `name` in the user's cache: under $SSPA_CACHE, or the platform's usual place."""
    root = os.environ.get("SSPA_CACHE") or platformdirs.user_cache_dir("sspa")
    folder = Path(root) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache folder {folder} cannot be created ({error.strerror}); set SSPA_CACHE to a writable folder"
        ) from error
    return folder


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
