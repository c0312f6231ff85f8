"""Whether the images that a manifest names exist, below its root."""

import os
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.stage2_training.data.columns import Paths
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.data.shards import SHARD_ENDING, file_of, missing_in_shards


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
    files: dict[str, frozenset[str]] = {}
    missing, sharded = [], []
    for relative in manifest.paths:
        folder, _, name = relative.rpartition("/")
        if folder.endswith(SHARD_ENDING):
            # The shard is looked for first.
            sharded.append(relative)
            folder, _, name = folder.rpartition("/")
        if folder not in files:
            files[folder] = _files_of(root, folder, real_root)
        # Not in the list: a link, missing, or written with other capitals, or with accents as characters of their own.
        # Which of the latter are the same file, the file system decides.
        if name not in files[folder] and not _exists(root, f"{folder}/{name}".lstrip("/"), real_root):
            missing.append(root / relative)
    return missing or missing_in_shards([root / relative for relative in sharded])


def _files_of(root: Path, folder: str, real_root: Path) -> frozenset[str]:
    """The files of a folder that are no links; none if the folder itself is not in the root, all links followed."""
    # One list instead of a question per image, each of which is a message where the disk is another machine's.
    path = f"{root}/{folder}"
    try:
        with os.scandir(path) as entries:
            files = frozenset(entry.name for entry in entries if not entry.is_symlink())
    except OSError:
        return frozenset()
    return files if _inside(path, real_root) else frozenset()


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
