"""Images in WebDataset shards: a few large tar files in place of millions of small ones.

The shards are ordinary WebDataset (per sample an image and a .json with id and labels), so that other tools can
stream them. Here they are read by random access: a shard acts as a folder, and the path of an image is
"train-000003.tar/00000042.jpg". Order and augmentation are therefore the same as with loose files. Each shard is
indexed once per process.
"""

import io
import tarfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from sspa.shared.errors import UserError

SHARD_ENDING = ".tar"


def file_of(path: Path) -> Path:
    """The file on disk that contains an image: itself, or its shard."""
    return path.parent if path.parent.suffix == SHARD_ENDING else path


def open_in_shard(path: Path) -> io.BytesIO | None:
    """The bytes of an image in a shard; None for a loose file.

    Raises:
        FileNotFoundError: the shard has no such member.
        OSError: the shard is missing or damaged.
    """
    shard = file_of(path)
    if shard == path:
        return None
    members = _members(shard)
    if path.name not in members:
        raise FileNotFoundError(path)
    offset, size = members[path.name]
    with shard.open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise OSError("the shard ends within this image")
    return io.BytesIO(content)


def missing_in_shards(paths: Iterable[Path]) -> list[Path]:
    """Those of the paths that point into a shard without such a member.

    Raises:
        UserError: a shard is damaged.
    """
    try:
        return [path for path in paths if file_of(path) != path and path.name not in _members(path.parent)]
    except OSError as error:
        raise UserError(f"{error}; copy or write the shard again") from None


@lru_cache(maxsize=4096)
def _members(shard: Path) -> dict[str, tuple[int, int]]:
    """Name -> (offset, size) for every file in a shard."""
    try:
        with tarfile.open(shard, "r:") as tar:
            return {member.name: (member.offset_data, member.size) for member in tar}
    except tarfile.TarError as error:
        raise OSError(f"{shard}: damaged shard ({error})") from error
