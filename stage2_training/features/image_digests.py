"""What image files contain, by digest: cached features outlive a data set that is moved, copied or touched."""

from collections.abc import Sequence
from pathlib import Path

from sspa.shared.file_digests import file_digests
from sspa.stage2_training.data.shards import SHARD_ENDING


def image_digests(paths: Sequence[Path]) -> list[str]:
    """The SHA-256 of each image file, in order; of an image in a shard, the shard's and the image's name.

    Raises:
        UserError: a file cannot be read.
    """
    files, names = [], []
    for text in map(str, paths):
        folder, _, name = text.rpartition("/")
        in_shard = folder.endswith(SHARD_ENDING)
        files.append(folder if in_shard else text)
        names.append(f" {name}" if in_shard else "")
    return [f"{digest}{name}" for digest, name in zip(file_digests(files, "images"), names, strict=True)]
