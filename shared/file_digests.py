"""SHA-256 of files, each read once: the cache remembers it for as long as size and time of change stay the same."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from sspa.shared.cache import cache_folder
from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.json_files import read_json
from sspa.shared.terminal import progress, say

# Reading fewer is over before a progress bar is worth its lines.
_LONG_WORK = 1000


class _Seen(NamedTuple):
    """A file's digest, and its size and time of change when it was read."""

    size: int
    changed_ns: int
    digest: str


def file_digests(files: Sequence[str | Path], what: str) -> list[str]:
    """The SHA-256 of each file, in order, as hex digits; `what` they are, in the plural, is shown while they are read.

    Raises:
        UserError: a file cannot be read.
    """
    # Texts, since a million Paths cost minutes.
    places = [os.path.split(file) for file in files]
    names: dict[str, dict[str, None]] = {}
    for folder, name in places:
        names.setdefault(folder, {})[name] = None
    memory = cache_folder("file-digests")
    found: dict[str, dict[str, _Seen]] = {}
    stale: list[tuple[str, str]] = []
    for folder in names:
        remembered = _remembered(memory, folder)
        found[folder] = {}
        for name in names[folder]:
            seen = remembered.get(name)
            if seen is None or seen[:2] != _size_and_change(os.path.join(folder, name)):  # noqa: PTH118
                stale.append((folder, name))
            else:
                found[folder][name] = seen
    for (folder, name), seen in zip(stale, _read([os.path.join(*file) for file in stale], what), strict=True):  # noqa: PTH118
        found[folder][name] = seen
    for folder in dict.fromkeys(folder for folder, _ in stale):
        _remember(memory, folder, found[folder])
    return [found[folder][name].digest for folder, name in places]


def _read(files: Sequence[str], what: str) -> Iterator[_Seen]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if len(files) < _LONG_WORK:
            yield from pool.map(_seen, files)
            return
        with progress(f"checksums of {what}", total=len(files), unit=what) as bar:
            for seen in pool.map(_seen, files):
                bar.advance()
                yield seen


def _seen(file: str) -> _Seen:
    # Before the content: what is changed meanwhile is read again next time.
    size, changed_ns = _size_and_change(file)
    try:
        with open(file, "rb") as opened:  # noqa: PTH123
            return _Seen(size, changed_ns, hashlib.file_digest(opened, "sha256").hexdigest())
    except OSError as error:
        raise _unreadable(file, error) from error


def _size_and_change(file: str) -> tuple[int, int]:
    try:
        about = os.stat(file)  # noqa: PTH116
    except OSError as error:
        raise _unreadable(file, error) from error
    return about.st_size, about.st_mtime_ns


def _unreadable(file: str, error: OSError) -> UserError:
    return UserError(f"{file}: cannot be read ({error.strerror})")


def _memory_of(memory: Path, folder: str) -> Path:
    return memory / f"{hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:24]}.json"


def _remembered(memory: Path, folder: str) -> dict[str, _Seen]:
    file = _memory_of(memory, folder)
    try:
        known = read_json(file, largest=None)
        return {name: _Seen(int(size), int(changed), str(digest)) for name, (size, changed, digest) in known.items()}
    except FileNotFoundError:
        return {}
    except (UserError, AttributeError, TypeError, ValueError):
        say(f"{file}: damaged; reading the files of {folder} again")
        return {}


def _remember(memory: Path, folder: str, files: Mapping[str, _Seen]) -> None:
    """Add to what is remembered. Of two processes that do so at once, one reads the files again next time."""
    try:
        with replacing(_memory_of(memory, folder)) as beside:
            beside.write_text(json.dumps({**_remembered(memory, folder), **files}), encoding="utf-8")
    except UserError as error:
        # A cache that others share may be read-only; what is in it serves all the same.
        say(f"{error}; going on without keeping these checksums")
