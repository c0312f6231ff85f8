"""What image files contain, by digest: cached features outlive a data set that is moved, copied or touched."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from sspa.shared.cache import cache_folder
from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.json_files import read_json
from sspa.shared.terminal import progress, say
from sspa.stage2_training.data.shards import file_of

# Reading fewer is over before a progress bar is worth its lines.
_LONG_WORK = 1000


class _Seen(NamedTuple):
    """A file's digest, and its size and time of change when it was read."""

    size: int
    changed_ns: int
    digest: str


def image_digests(paths: Sequence[Path]) -> list[str]:
    """The SHA-256 of each image file, in order; of an image in a shard, the shard's and the image's name.

    A file is read once: the cache remembers its digest for as long as its size and its time of change stay the same.

    Raises:
        UserError: a file cannot be read.
    """
    containers = [file_of(path) for path in paths]
    found: dict[Path, _Seen] = {}
    stale: list[Path] = []
    by_folder = {
        folder: list(files) for folder, files in groupby(sorted(set(containers)), key=lambda file: file.parent)
    }
    for folder, files in by_folder.items():
        remembered = _remembered(folder)
        for file in files:
            seen = remembered.get(file.name)
            if seen is None or seen[:2] != _size_and_change(file):
                stale.append(file)
            else:
                found[file] = seen
    found |= zip(stale, _read(stale), strict=True)
    for folder in dict.fromkeys(file.parent for file in stale):
        _remember(folder, {file.name: found[file] for file in by_folder[folder]})
    digests = (found[container].digest for container in containers)
    return [
        digest if container == path else f"{digest} {path.name}"
        for digest, container, path in zip(digests, containers, paths, strict=True)
    ]


def _read(files: Sequence[Path]) -> Iterator[_Seen]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if len(files) < _LONG_WORK:
            yield from pool.map(_seen, files)
            return
        with progress("checksums of images", total=len(files), unit="images") as bar:
            for seen in pool.map(_seen, files):
                bar.advance()
                yield seen


def _seen(file: Path) -> _Seen:
    # Before the content: what is changed meanwhile is read again next time.
    size, changed_ns = _size_and_change(file)
    try:
        with file.open("rb") as opened:
            return _Seen(size, changed_ns, hashlib.file_digest(opened, "sha256").hexdigest())
    except OSError as error:
        raise _unreadable(file, error) from error


def _size_and_change(file: Path) -> tuple[int, int]:
    try:
        about = file.stat()
    except OSError as error:
        raise _unreadable(file, error) from error
    return about.st_size, about.st_mtime_ns


def _unreadable(file: Path, error: OSError) -> UserError:
    return UserError(f"{file}: cannot be read ({error.strerror})")


def _memory_of(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:24]
    return cache_folder("image-digests") / f"{name}.json"


def _remembered(folder: Path) -> dict[str, _Seen]:
    memory = _memory_of(folder)
    try:
        known = read_json(memory, largest=None)
        return {name: _Seen(int(size), int(changed), str(digest)) for name, (size, changed, digest) in known.items()}
    except FileNotFoundError:
        return {}
    except (UserError, AttributeError, TypeError, ValueError):
        say(f"{memory}: damaged; reading the images of {folder} again")
        return {}


def _remember(folder: Path, files: Mapping[str, _Seen]) -> None:
    """Add to what is remembered. Of two processes that do so at once, one reads the files again next time."""
    try:
        with replacing(_memory_of(folder)) as beside:
            beside.write_text(json.dumps({**_remembered(folder), **files}), encoding="utf-8")
    except UserError as error:
        # A cache that others share may be read-only; features that are in it serve all the same.
        say(f"{error}; going on without keeping these checksums")
