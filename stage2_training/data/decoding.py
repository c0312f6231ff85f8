"""Finds the images that cannot be read, all of them at once and in parallel."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.terminal import progress
from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.data.shards import file_of

# A JPEG is decoded to no more pixels than this on its short side: all its data is read all the same.
_PIXELS = 64
# What is wrong with an image, by path, size and modification time; "" if nothing is.
_known: dict[tuple[str, int, int], str] = {}


def unreadable_images(paths: Sequence[Path]) -> dict[Path, str]:
    """What is wrong with each image that cannot be decoded, in the order of `paths`.

    Decoding releases Python's lock, so that threads use all cores. What was found is remembered for this process.
    """
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress("decoding", total=len(paths), unit="images") as bar,
    ):
        found = {}
        for path, problem in zip(paths, pool.map(_problem_of, paths), strict=True):
            bar.advance()
            if problem:
                found[path] = problem
    return found


def _problem_of(path: Path) -> str:
    try:
        about = file_of(path).stat()
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    key = (str(path), about.st_size, about.st_mtime_ns)
    if key not in _known:
        try:
            load_image(path, at_least=_PIXELS)
            _known[key] = ""
        except UserError as error:
            _known[key] = str(error)
    return _known[key]
