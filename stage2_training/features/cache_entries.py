"""What the cache of features holds, and room made in it. See `FeatureCache` for how entries are made and found."""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from sspa.shared.cache import cache_folder
from sspa.shared.errors import UserError
from sspa.shared.json_files import check_shape, read_json

CACHE = "features"
_ABOUT = "about.json"
_RUNS = "runs.jsonl"


class About(BaseModel):
    """What an entry is of: for people, since its key says nothing to them.

    `images_in` is the deepest folder that held all its images when it was computed; `computed_on` the environment.
    """

    split: str
    images: int
    images_in: str
    view: str
    backbone: str
    image_size: tuple[int, int]
    computed_on: dict[str, object]


@dataclass(frozen=True)
class CacheEntry:
    """An entry of the cache; `last_used` in seconds since 1970. `about` is None where another version made it.

    `runs` are the folders of the runs that have used it; some may be gone.
    """

    key: str
    size_bytes: int
    last_used: float
    about: About | None
    runs: tuple[str, ...] = ()

    @property
    def orphaned(self) -> bool:
        """Whether runs have used it, and none of their folders is there any more."""
        return bool(self.runs) and not any(Path(run).is_dir() for run in self.runs)


def describe(folder: Path, about: About) -> None:
    """Say in an entry what it is."""
    (folder / _ABOUT).write_text(json.dumps(about.model_dump(), indent=1) + "\n", encoding="utf-8")


def mark_used(folder: Path, run: Path | None = None) -> None:
    """Make an entry the most recently used one, and say which run's folder it is used for, if any."""
    # Others may share a cache that they cannot write: only what is deleted first depends on this.
    with suppress(OSError):
        if run is not None and (path := str(run.resolve())) not in _runs(folder):
            # One short write at the end, so that two runs at a time do not mix.
            with (folder / _RUNS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(path) + "\n")
        os.utime(folder)


def cache_entries() -> list[CacheEntry]:
    """All entries, the most recently used first."""
    folders = [folder for folder in cache_folder(CACHE).iterdir() if folder.is_dir() and folder.suffix != ".tmp"]
    return sorted(map(_entry, folders), key=lambda entry: (-entry.last_used, entry.key))


def make_room(keep_bytes: float) -> list[CacheEntry]:
    """Delete the entries of other versions, then the least recently used ones, until at most this many bytes are left.

    A run that is using one of them goes on, and the disk space returns when it ends.

    Returns:
        what was deleted.

    Raises:
        UserError: an entry cannot be deleted.
    """
    entries = cache_entries()
    surplus = sum(entry.size_bytes for entry in entries) - keep_bytes
    deleted = []
    for entry in sorted(entries, key=lambda entry: (entry.about is not None, entry.last_used)):
        if surplus <= 0:
            break
        _delete(entry)
        surplus -= entry.size_bytes
        deleted.append(entry)
    return deleted


def delete_orphaned() -> list[CacheEntry]:
    """Delete the entries of runs that are all gone; returns which.

    Raises:
        UserError: an entry cannot be deleted.
    """
    orphaned = [entry for entry in cache_entries() if entry.orphaned]
    for entry in orphaned:
        _delete(entry)
    return orphaned


def common_folder(paths: Sequence[Path]) -> str:
    """The deepest folder that holds all these files."""
    return os.path.commonpath([path.parent.absolute() for path in paths]) if paths else ""


def _delete(entry: CacheEntry) -> None:
    folder = cache_folder(CACHE) / entry.key
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be deleted ({error.strerror})") from error


def _runs(folder: Path) -> tuple[str, ...]:
    """The runs that have used an entry, each once; a line that is damaged names none."""
    file = folder / _RUNS
    if not file.is_file():
        return ()
    found: dict[str, None] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            found[str(json.loads(line))] = None
    return tuple(found)


def _entry(folder: Path) -> CacheEntry:
    files = [file.stat() for file in folder.iterdir() if file.is_file()]
    try:
        about = check_shape(About, read_json(folder / _ABOUT), f"{folder}: ")
    except (FileNotFoundError, UserError):
        about = None
    return CacheEntry(folder.name, sum(file.st_size for file in files), folder.stat().st_mtime, about, _runs(folder))
