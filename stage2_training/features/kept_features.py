"""Cached features of a frozen image tower: computed once per split and view, and memory-mapped.

Legend: N images, M regions, d width of the joint space.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sspa.shared.cache import cache_folder, delete_damaged
from sspa.shared.errors import UserError
from sspa.shared.files import replacing_folder
from sspa.shared.json_files import read_json
from sspa.shared.terminal import progress, say
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.compute.environment import environment
from sspa.stage2_training.compute.tensor_files import UNREADABLE, map_array
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.data.loading import ImageDataset, ImageLoader
from sspa.stage2_training.data.transforms import make_transform
from sspa.stage2_training.features.cache_entries import CACHE, About, common_folder, describe, mark_used
from sspa.stage2_training.features.image_digests import image_digests
from sspa.stage2_training.model.views import View, under_view

_BATCH = 32
_FORMAT = 3
_FILES = ("pooled", "regions")
_UNREADABLE = "unreadable.json"
_PART = 4096


@dataclass(frozen=True)
class KeptFeatures:
    """One split's features under one view, as stored in cache entries.

    Attributes:
        pooled, regions: (N, d) and (N, M, d) of each entry, float16, memory-mapped.
        rows: the rows of the split's images in the concatenated entries; None if the split is all of them in order.
        unreadable: what is wrong with each image that could not be read, by its row in the split. Its features are
            those of a blank image.
    """

    pooled: tuple[NDArray[np.float16], ...]
    regions: tuple[NDArray[np.float16], ...]
    rows: NDArray[np.int64] | None = None
    unreadable: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.pooled)) if self.rows is None else len(self.rows)

    def take(self, indices: NDArray[np.int64]) -> ImageFeatures:
        """The features of these images as float32 tensors."""
        rows = indices if self.rows is None else self.rows[indices]
        return ImageFeatures(*(torch.from_numpy(_gathered(kept, rows)).float() for kept in (self.pooled, self.regions)))


def kept_features(
    backbone: Backbone, splits: Sequence[Split], view: View, device: torch.device, workers: int
) -> list[KeptFeatures]:
    """The features of each split under `view`, from the cache, or computed and cached now.

    A cache entry's key covers the backbone's weights and options, the content of the image files in order, the view,
    and the format of the entry; about.json beside the arrays says what they are (`cache_entries`). A split drawn
    from another split uses that one's entry if it exists. If it needs most of the other
    split's images, the entry is computed for the whole of that split, so that other draws can use it as well.
    A damaged entry is computed again. A large split has an entry for each `_PART` of its images, so that what was
    computed is kept when the run is stopped. Images that cannot be read are recorded, and cost nothing else.

    Raises:
        UserError: the disk is full.
    """
    folder_of: dict[int, Path] = {}

    def entry(split: Split) -> Path:
        if id(split) not in folder_of:
            folder_of[id(split)] = cache_folder(CACHE) / _key(backbone, split, view)
        return folder_of[id(split)]

    parts_of: dict[int, list[Split]] = {}

    def parts(split: Split) -> list[Split]:
        return parts_of.setdefault(id(split), _parts(split))

    def kept(split: Split) -> bool:
        return all(entry(part).is_dir() for part in parts(split))

    whole = [_sources(split, splits, kept) for split in splits]
    sources = [[part for source in sources_of for part in parts(source)] for sources_of in whole]
    wanted = {entry(source): source for sources_of in sources for source in sources_of}
    missing = [(source, folder) for folder, source in wanted.items() if not _is_kept(folder, source, backbone)]
    if missing:
        needed = 2 * sum(math.prod(shape) for split, _ in missing for shape in _shapes(split, backbone))
        where = missing[0][1].parent
        free = shutil.disk_usage(where).free
        names = ", ".join(dict.fromkeys(split.name for split, _ in missing))
        say(f"keeping the frozen tower's features of {names} ({view} view): {needed / 1e6:,.0f} MB in {where}")
        if needed > free:
            raise UserError(
                f"{where}: {needed / 1e6:,.0f} MB of features do not fit into {free / 1e6:,.0f} MB; "
                "free some room, or set SSPA_CACHE to a larger disk"
            )
        with progress(f"image tower, {view} view", sum(len(split) for split, _ in missing), "images") as bar:
            for split, folder in missing:
                with replacing_folder(folder, keep_theirs=True) as beside:
                    _compute(backbone, split, view, device, workers, beside, bar.advance)
    for folder in wanted:
        mark_used(folder)
    return [
        _opened(split, [entry(each) for each in own], None if sources_of[0] is split else _rows_of(split, own))
        for split, own, sources_of in zip(splits, sources, whole, strict=True)
    ]


def _parts(split: Split) -> list[Split]:
    """The split, or its parts if it is large."""
    if len(split) <= _PART:
        return [split]
    places = [slice(start, start + _PART) for start in range(0, len(split), _PART)]
    return [
        Split(split.name, split.ids[place], split.paths[place], split.targets[place], split.within) for place in places
    ]


def _opened(split: Split, folders: Sequence[Path], rows: NDArray[np.int64] | None) -> KeptFeatures:
    pooled, regions = (tuple(map_array(folder / f"{name}.npy") for folder in folders) for name in _FILES)
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
    file = folder / _UNREADABLE
    return {int(row): str(problem) for row, problem in read_json(file).items()} if file.is_file() else {}


def _is_kept(folder: Path, split: Split, backbone: Backbone) -> bool:
    """Whether the entry exists; a damaged one is deleted.

    Raises:
        UserError: a damaged one cannot be deleted.
    """
    if not folder.is_dir():
        return False
    try:
        found = {name: map_array(folder / f"{name}.npy") for name in _FILES}
        whole = all(
            (array.shape, array.dtype) == (shape, np.float16)
            for array, shape in zip(found.values(), _shapes(split, backbone), strict=True)
        )
        whole = whole and all(0 <= row < len(split) for row in _unreadable(folder))
    except (*UNREADABLE, UserError, ValueError, AttributeError):
        whole = False
    if not whole:
        say(f"{folder}: damaged features in the cache; computing them again")
        delete_damaged(folder)
    return whole


def _shapes(split: Split, backbone: Backbone) -> tuple[tuple[int, ...], ...]:
    """Those of the arrays in `_FILES`: pooled features and regions."""
    regions = backbone.grid[0] * backbone.grid[1]
    return (len(split), backbone.width), (len(split), regions, backbone.width)


def _sources(split: Split, wanted: Sequence[Split], kept: Callable[[Split], bool]) -> tuple[Split, ...]:
    """The splits whose entries provide the features of `split`, one of the `wanted` ones."""
    whole = split.within
    if not whole:
        return (split,)
    asked = sum(len(other) for other in wanted if other.within is whole)
    if all(kept(each) for each in whole) or (2 * asked > sum(map(len, whole)) and not kept(split)):
        return whole
    return (split,)


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


@torch.inference_mode()
def _compute(
    backbone: Backbone,
    split: Split,
    view: View,
    device: torch.device,
    workers: int,
    folder: Path,
    done: Callable[[int], None],
) -> None:
    transform = make_transform(backbone.image_size, backbone.mean, backbone.std, train=False)
    # Whether there are too many is for those to say who use the features.
    images_of = ImageDataset(split, transform, unreadable="blank")
    loader = ImageLoader(images_of, _BATCH, workers=workers, unreadable_share=1.0)
    with ExitStack() as opened:
        # Not through a memory map: on a full disk, writing to one ends the process with SIGBUS.
        files = [opened.enter_context((folder / f"{name}.npy").open("wb")) for name in _FILES]
        for file, shape in zip(files, _shapes(split, backbone), strict=True):
            header = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        for images, _, indices in loader.epoch(0):  # in the order of the split
            features = backbone.encode_image(under_view(images.to(device), view))
            for file, values in zip(files, (features.pooled, features.regions), strict=True):
                file.write(values.half().cpu().contiguous().numpy().data)
            done(len(indices))
    if loader.blank:
        # Without the file's name: the entry serves other copies of it too.
        problems = {row: message.removeprefix(f"{split.paths[row]}: ") for row, message in loader.blank.items()}
        (folder / _UNREADABLE).write_text(json.dumps(problems, indent=1) + "\n", encoding="utf-8")
    describe(
        folder,
        About(
            split=split.name,
            images=len(split),
            images_in=common_folder(split.paths),
            view=view,
            backbone=backbone.name,
            image_size=backbone.image_size,
            computed_on=environment(device),
        ),
    )


def _key(backbone: Backbone, split: Split, view: View) -> str:
    images = image_digests(split.paths)
    content = [_FORMAT, backbone.fingerprint, backbone.image_size, view, "squash", images]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
