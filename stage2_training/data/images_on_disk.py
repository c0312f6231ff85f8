"""Whether the images that a manifest names exist, below its root."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from sspa.shared.errors import UserError
from sspa.stage2_training.data.columns import Paths, Texts
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.data.shards import SHARD_ENDING, file_of, missing_in_shards

# What of a path is found where its image is in a shard.
_IN_SHARD = rf"\{SHARD_ENDING}/[^/]*$"


def in_root(root: Path, relative: str) -> bool:
    """Whether an image, or the shard it is in, lies below `root`."""
    return file_of(root / relative).is_file()


def resolve_paths(manifest: Manifest, root: Path) -> Paths:
    """The paths of the images under `root`, all of which exist.

    Raises:
        UserError: `root` is not a folder, a link below it leads out of it, or images are missing.
    """
    check_images(manifest, root)
    return Paths(root, manifest.paths)


def check_images(manifest: Manifest, root: Path) -> None:
    """Check that all images exist under `root`.

    Raises:
        UserError: see `resolve_paths`.
    """
    if missing := missing_images(manifest, root):
        raise UserError(
            f"{len(missing)} of {len(manifest.paths)} images are missing, the first is {missing[0]};"
            " is the archive unpacked completely? (data prepare --missing leave-out does without them)"
        )


def missing_images(manifest: Manifest, root: Path) -> list[Path]:
    """The paths under `root` that the manifest names and that do not exist.

    Raises:
        UserError: `root` is not a folder, or a link below it leads out of it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; give the data root with --root")
    real_root = Path(os.path.realpath(root))
    paths = manifest.paths
    in_shard = paths.rows_matching(_IN_SHARD)
    # The shard in place of the image.
    files = paths.replaced(_IN_SHARD, SHARD_ENDING) if in_shard.size else paths
    folders = {file.rpartition("/")[0] for file in files}
    unlisted = files.take(np.flatnonzero(~files.is_in(_listed(root, folders, real_root))))
    # Not in the lists: a link, missing, or written with other capitals, or with accents as characters of their own.
    # Which of the latter are the same file, the file system decides.
    gone = Texts([file for file in unlisted.distinct() if not _exists(root, file, real_root)])
    missing = [root / paths[row] for row in np.flatnonzero(files.is_in(gone)).tolist()]
    return missing or missing_in_shards([root / path for path in paths.take(in_shard)])


def _listed(root: Path, folders: set[str], real_root: Path) -> Texts:
    """The files in these folders below `root`, as paths from there, without links, and without folders that lie
    elsewhere once all links are followed."""
    files: list[bytes] = []
    for folder in folders:
        # One list instead of a question per image, each of which is a message where the disk is another machine's.
        path, before = f"{root}/{folder}", f"{folder}/".encode() if folder else b""
        try:
            with os.scandir(os.fsencode(path)) as entries:
                names = [entry.name for entry in entries if not entry.is_symlink()]
        except OSError:
            continue
        if _inside(path, real_root):
            files += [before + name for name in names]
    # Names may be of bytes that are no text, which then equal no path.
    offsets = np.cumsum([0, *map(len, files)])
    return Texts(
        pa.Array.from_buffers(pa.large_string(), len(files), [None, *map(pa.py_buffer, (offsets, b"".join(files)))])
    )


def _exists(root: Path, relative: str, real_root: Path) -> bool:
    """Whether there is such a file, or a link, wherever in the root that points to."""
    path = f"{root}/{relative}"
    if not os.path.lexists(path):
        return False
    if not _inside(path, real_root):
        raise UserError(f"{path}: a link leads out of the data root {root}; copy the images or move the root")
    return True


def _inside(path: str, real_root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(real_root)
