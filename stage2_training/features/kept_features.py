"""Cached features of a frozen image tower: computed once per split and view, and memory-mapped.

Legend: N images, M regions, d width of the joint space.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sspa.shared.cache import cache_folder, delete_damaged
from sspa.shared.errors import UserError
from sspa.shared.json_files import read_json
from sspa.shared.terminal import progress, say
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.compute.processes import ALONE, Processes
from sspa.stage2_training.compute.tensor_files import UNREADABLE, map_array
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.features.cache_entries import CACHE, mark_used
from sspa.stage2_training.features.computing import PROBLEMS, EntryWriter, Kind, entry_shapes
from sspa.stage2_training.features.image_digests import image_digests
from sspa.stage2_training.model.options import View

_FORMAT = 4
_PART = 4096


@dataclass(frozen=True)
class KeptFeatures:
    """One split's features under one view, as stored in cache entries.

    Attributes:
        pooled, regions: (N, d) and (N, M, d) of each entry, float16, memory-mapped; regions None if they were not kept.
        rows: the rows of the split's images in the concatenated entries; None if the split is all of them in order.
        unreadable: what is wrong with each image that could not be read, by its row in the split. Its features are
            those of a blank image.
    """

    pooled: tuple[NDArray[np.float16], ...]
    regions: tuple[NDArray[np.float16], ...] | None
    rows: NDArray[np.int64] | None = None
    unreadable: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.pooled)) if self.rows is None else len(self.rows)

    def all_pooled(self) -> NDArray[np.float16]:
        """(N, d): the pooled feature of every image, without reading any regions."""
        return _gathered(self.pooled, np.arange(len(self)) if self.rows is None else self.rows)

    def take(self, indices: NDArray[np.int64]) -> ImageFeatures:
        """The features of these images, in float16 as they are stored; without regions, there are zero of them."""
        rows = indices if self.rows is None else self.rows[indices]
        pooled = torch.from_numpy(_gathered(self.pooled, rows))
        if self.regions is None:
            return ImageFeatures(pooled, pooled.new_empty(len(pooled), 0, pooled.shape[1]))
        return ImageFeatures(pooled, torch.from_numpy(_gathered(self.regions, rows)))


class FeatureCache:
    """The features of one backbone's frozen image tower: from the cache, or computed and cached now.

    A cache entry's key covers the backbone's weights and options, the content of the image files in order, the view,
    and the format of the entry; about.json beside the arrays says what they are (`cache_entries`). A split drawn
    from another split uses that one's entry if it exists. If it needs most of the other split's images, the entry is
    computed for the whole of that split, so that other draws can use it as well. A damaged entry is computed again. A
    large split has an entry for each `_PART` of its images, so that what was computed is kept when the run is stopped.
    Images that cannot be read are recorded, and cost nothing else. An entry for a head that reads no regions has none,
    which makes it a hundred times smaller; one with regions serves it too.
    """

    def __init__(
        self,
        backbone: Backbone,
        device: torch.device,
        workers: int | Literal["auto"],
        regions: bool = True,
        processes: Processes = ALONE,
    ) -> None:
        self._backbone, self._device, self._workers, self._processes = backbone, device, workers, processes
        self._kinds: tuple[Kind, ...] = ("pooled", "regions") if regions else ("pooled",)
        self._parts: dict[Split, list[Split]] = {}
        self._keys: dict[tuple[Split, View, tuple[Kind, ...]], str] = {}
        self._digests: dict[Split, list[str]] = {}
        self._run: Path | None = None

    def belong_to(self, run: Path) -> None:
        """From here on, what is used is used for this run's folder, which the entries say."""
        self._run = run

    def keep(
        self, *wanted: tuple[Sequence[Split], Sequence[View]], told: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        """Compute what the cache lacks of these splits under their views; each image is decoded once for all views.

        All processes take part; those that share the cache share the work.

        Args:
            told: called in the first process with how many images are done, and of how many. What it raises ends the
                computation, and nothing of it is kept.

        Raises:
            UserError: it does not fit on the disk.
        """
        self._keep(wanted, self._processes.sharing(cache_folder(CACHE)), told)

    def has(self, *wanted: tuple[Sequence[Split], Sequence[View]]) -> bool:
        """Whether all of that is in the cache already."""
        return not self._missing(wanted)

    def _keep(
        self,
        wanted: Sequence[tuple[Sequence[Split], Sequence[View]]],
        processes: Processes,
        told: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        # One of them looks, since meanwhile another program may add to the cache.
        missing = processes.first(lambda: self._with_room(self._missing(wanted)))
        if missing:
            count = sum(len(source) for source, _ in missing)
            done = 0
            with progress("image tower", count, "images") as bar:

                def advance(images: int) -> None:
                    nonlocal done
                    done += images
                    bar.advance(images)
                    told(done, count)

                writer = EntryWriter(self._backbone, self._kinds, self._device, self._workers, processes, advance)
                for source, folders in missing:
                    writer.write(source, folders)

    def _missing(
        self, wanted: Sequence[tuple[Sequence[Split], Sequence[View]]]
    ) -> list[tuple[Split, dict[View, Path]]]:
        missing: dict[Split, dict[View, Path]] = {}
        for splits, views in wanted:
            for view in views:
                for entry, source in self._sources_of_all(splits, view).items():
                    if not _is_kept(entry, self._shapes(source)):
                        missing.setdefault(source, {})[view] = entry
        return list(missing.items())

    def kept(self, splits: Sequence[Split], view: View) -> list[KeptFeatures]:
        """The features of each split under `view`, computed first, by this process alone, if the cache lacks them.

        Raises:
            UserError: it does not fit on the disk.
        """
        self._keep([(splits, [view])], ALONE)
        opened = []
        for split in splits:
            sources = self._sources(split, splits, view)
            parts = [part for source in sources for part in self._parts_of(source)]
            folders = [self._entry(part, view) for part in parts]
            for folder in folders:
                mark_used(folder, self._run)
            rows = None if sources[0] is split else _rows_of(split, parts)
            opened.append(_opened(split, folders, self._kinds, rows))
        return opened

    def _entry(self, split: Split, view: View) -> Path:
        with_regions = cache_folder(CACHE) / self._key(split, view, ("pooled", "regions"))
        if "regions" in self._kinds or with_regions.is_dir():
            return with_regions
        return cache_folder(CACHE) / self._key(split, view, self._kinds)

    def _key(self, split: Split, view: View, kinds: tuple[Kind, ...]) -> str:
        asked = (split, view, kinds)
        if asked not in self._keys:
            images = self._digests_of(split)
            content = [_FORMAT, self._backbone.fingerprint, self._backbone.image_size, view, "squash", images]
            if "regions" not in kinds:
                content.append("pooled alone")
            self._keys[asked] = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
        return self._keys[asked]

    def _digests_of(self, split: Split) -> list[str]:
        if split not in self._digests:
            self._digests[split] = image_digests(split.paths)
        return self._digests[split]

    def _shapes(self, split: Split) -> dict[Kind, tuple[int, ...]]:
        return entry_shapes(self._backbone, self._kinds, len(split))

    def _sources_of_all(self, splits: Sequence[Split], view: View) -> dict[Path, Split]:
        """The splits, or parts of them, that have entries of their own, by these."""
        sources = [source for split in splits for source in self._sources(split, splits, view)]
        return {self._entry(part, view): part for source in sources for part in self._parts_of(source)}

    def _sources(self, split: Split, wanted: Sequence[Split], view: View) -> tuple[Split, ...]:
        """The splits whose entries provide the features of `split`, one of the `wanted` ones."""
        whole = split.within
        if not whole:
            return (split,)
        asked = sum(len(other) for other in wanted if other.within is whole)
        wholes_are_there = all(self._is_there(each, view) for each in whole)
        if wholes_are_there or (2 * asked > sum(map(len, whole)) and not self._is_there(split, view)):
            return whole
        return (split,)

    def _is_there(self, split: Split, view: View) -> bool:
        return all(self._entry(part, view).is_dir() for part in self._parts_of(split))

    def _parts_of(self, split: Split) -> list[Split]:
        """The split, or its parts if it is large."""
        if len(split) <= _PART:
            return [split]
        if split not in self._parts:
            # All at once, since what is remembered of a folder is read as a whole.
            digests = self._digests_of(split)
            self._parts[split] = []
            for start in range(0, len(split), _PART):
                place = slice(start, start + _PART)
                part = Split(split.name, split.ids[place], split.paths[place], split.targets[place], split.within)
                self._parts[split].append(part)
                self._digests[part] = digests[place]
        return self._parts[split]

    def _with_room(self, missing: list[tuple[Split, dict[View, Path]]]) -> list[tuple[Split, dict[View, Path]]]:
        """What is missing, which fits on the disk."""
        if not missing:
            return missing
        needed = 2 * sum(
            len(folders) * math.prod(shape) for source, folders in missing for shape in self._shapes(source).values()
        )
        where = cache_folder(CACHE)
        free = shutil.disk_usage(where).free
        names = ", ".join(dict.fromkeys(source.name for source, _ in missing))
        views = ", ".join(dict.fromkeys(view for _, folders in missing for view in folders))
        say(f"keeping the frozen tower's features of {names} ({views}): {needed / 1e6:,.0f} MB in {where}")
        if needed > free:
            raise UserError(
                f"{where}: {needed / 1e6:,.0f} MB of features do not fit into {free / 1e6:,.0f} MB; make room "
                "(sspa-train cache --keep GB), or take another disk (sspa-train --cache FOLDER ...), smaller images "
                "(--set backbone.image_size=[HEIGHT,WIDTH]), fewer regions (--set backbone.region_grid=[6,6]) or one "
                "view (--set training.views=[plain] evaluation.views=[plain])"
            )
        return missing


def _opened(
    split: Split, folders: Sequence[Path], kinds: Sequence[Kind], rows: NDArray[np.int64] | None
) -> KeptFeatures:
    arrays = {kind: tuple(map_array(folder / f"{kind}.npy") for folder in folders) for kind in kinds}
    pooled, regions = arrays["pooled"], arrays.get("regions")
    first = 0
    found: dict[int, str] = {}
    for folder, array in zip(folders, pooled, strict=True):
        found |= {first + row: problem for row, problem in _unreadable(folder).items()}
        first += len(array)
    if rows is not None and found:
        found = {place: found[row] for place, row in enumerate(rows.tolist()) if row in found}
    return KeptFeatures(pooled, regions, rows, {row: f"{split.paths[row]}: {found[row]}" for row in found})


def _unreadable(folder: Path) -> dict[int, str]:
    """What an entry says about images that could not be read, by their rows in it, but not where they are.

    Raises:
        UserError, ValueError, AttributeError: it is damaged.
    """
    file = folder / PROBLEMS
    return {int(row): str(problem) for row, problem in read_json(file).items()} if file.is_file() else {}


def _is_kept(folder: Path, shapes: Mapping[Kind, tuple[int, ...]]) -> bool:
    """Whether the entry exists, with arrays of these shapes; a damaged one is deleted.

    Raises:
        UserError: a damaged one cannot be deleted.
    """
    if not folder.is_dir():
        return False
    try:
        found = {kind: map_array(folder / f"{kind}.npy") for kind in shapes}
        whole = all((found[kind].shape, found[kind].dtype) == (shape, np.float16) for kind, shape in shapes.items())
        whole = whole and all(0 <= row < shapes["pooled"][0] for row in _unreadable(folder))
    except (*UNREADABLE, UserError, ValueError, AttributeError):
        whole = False
    if not whole:
        say(f"{folder}: damaged features in the cache; computing them again")
        delete_damaged(folder)
    return whole


def _rows_of(split: Split, sources: Sequence[Split]) -> NDArray[np.int64]:
    place = {key: row for row, key in enumerate(key for source in sources for key in source.ids)}
    return np.array([place[key] for key in split.ids], dtype=np.int64)


def _gathered(entries: Sequence[NDArray[np.float16]], rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """These rows of the concatenated entries."""
    if len(entries) == 1:
        return entries[0][rows]
    gathered = np.empty((len(rows), *entries[0].shape[1:]), dtype=np.float16)
    first = 0
    for entry in entries:
        here = (rows >= first) & (rows < first + len(entry))
        gathered[here] = entry[rows[here] - first]
        first += len(entry)
    return gathered
