"""The user's cache: what can be made again, so that it need not be."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import platformdirs

from sspa.shared.errors import UserError
from sspa.shared.files import replacing_folder
from sspa.shared.temporary_folders import delete_abandoned
from sspa.shared.terminal import say

# The environment's variable that says where the cache is.
PLACE = "SSPA_CACHE"
# In a folder of `built_once`: the SHA-256 of each of its files.
_SUMS = "sha256.json"


def cache_folder(name: str) -> Path:
    """The folder `name` in the user's cache: under $SSPA_CACHE, or the platform's usual place.

    Raises:
        UserError: it cannot be created.
    """
    root = os.environ.get(PLACE) or platformdirs.user_cache_dir("sspa")
    folder = Path(root) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache folder {folder} cannot be created ({error.strerror}); set SSPA_CACHE to a writable folder"
        ) from error
    delete_abandoned(folder)
    return folder


def built_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder`, built by `build` if it is missing, or if one of its files is no longer what was built.

    Raises:
        UserError: it cannot be written, and what `build` raises.
    """
    if folder.is_dir():
        if _is_whole(folder):
            return folder
        say(f"{folder}: is damaged, or of another version of sspa; building it again")
        delete_damaged(folder)
    with replacing_folder(folder, keep_theirs=True) as beside:
        build(beside)
        (beside / _SUMS).write_text(json.dumps(_sums(beside), indent=1) + "\n", encoding="utf-8")
    return folder


def delete_damaged(folder: Path) -> None:
    """Delete an entry of the cache.

    Raises:
        UserError: it cannot be deleted.
    """
    try:
        rmtree(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: is damaged and cannot be deleted ({error.strerror}); delete it, or set SSPA_CACHE to a "
            "writable folder"
        ) from error


def _is_whole(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _SUMS).read_bytes()) == _sums(folder))
    except (OSError, ValueError):
        return False


def _sums(folder: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _SUMS:
            with path.open("rb") as file:
                sums[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
