"""Features of a frozen image tower: computed once for each split and view, kept, memory-mapped.

Legend: N pictures, M regions, d width of the joint space.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.files import cache_folder, replacing_folder
from sspa.shared.terminal import progress, say
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.data.loading import PictureDataset, PictureLoader
from sspa.stage2_training.data.shards import file_of
from sspa.stage2_training.data.transforms import TransformOptions, make_transform

_BATCH = 32
_FORMAT = 2


@dataclass(frozen=True)
class KeptFeatures:
    """One split's features under one view: pooled (N, d) and regions (N, M, d), float16, memory-mapped.

    `rows` says where the split's pictures stand in the arrays, where those hold more; else they stand in order.
    """

    pooled: NDArray[np.float16]
    regions: NDArray[np.float16]
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.pooled if self.rows is None else self.rows)

    def take(self, indices: NDArray[np.int64]) -> ImageFeatures:
        """The features of these pictures as float32 tensors."""
        indices = indices if self.rows is None else self.rows[indices]
        return ImageFeatures(
            *(torch.from_numpy(kept[indices]).float() for kept in (self.pooled, self.regions)),
        )


def kept_features(
    backbone: Backbone, splits: Sequence[Split], view: str, device: torch.device, workers: int
) -> list[KeptFeatures]:
    """The features of each split under `view`, from the cache, or computed and kept there now.

    A cache entry's key covers the backbone's weights and options, the picture files (path, size and time of
    change) in order, the view, and the form of the entry. A split drawn from another takes the other's where they
    are there.

    Raises:
        UserError: a picture cannot be read, or the disk has no room.
    """
    wholes = [_kept_whole(backbone, split, view) for split in splits]
    folders = [cache_folder("features") / _key(backbone, whole, view) for whole in wholes]
    missing = [(split, folder) for split, folder in zip(splits, folders, strict=True) if not folder.is_dir()]
    if missing:
        regions, width = backbone.grid[0] * backbone.grid[1], backbone.width
        needed = sum(len(split) for split, _ in missing) * (regions + 1) * width * 2
        free = shutil.disk_usage(folders[0].parent).free
        names = ", ".join(split.name for split, _ in missing)
        where = folders[0].parent
        say(f"keeping the frozen tower's features of {names} ({view} view): {needed / 1e6:,.0f} MB in {where}")
        if needed > free:
            raise UserError(
                f"{folders[0].parent}: {needed / 1e6:,.0f} MB of features do not fit into {free / 1e6:,.0f} MB; "
                "free some room, or set SSPA_CACHE to a larger disk"
            )
        with progress(f"image tower, {view} view", sum(len(split) for split, _ in missing), "pictures") as bar:
            for split, folder in missing:
                with replacing_folder(folder) as beside:
                    _compute(backbone, split, view, device, workers, beside, bar.advance)
    return [
        KeptFeatures(
            np.load(folder / "pooled.npy", mmap_mode="r"),
            np.load(folder / "regions.npy", mmap_mode="r"),
            None if whole is split else _rows_of(split, whole),
        )
        for split, whole, folder in zip(splits, wholes, folders, strict=True)
    ]


def _kept_whole(backbone: Backbone, split: Split, view: str) -> Split:
    """The split whose features are to be read: the one that `split` was drawn from if its features are kept."""
    whole = split.within
    if whole is None or not (cache_folder("features") / _key(backbone, whole, view)).is_dir():
        return split
    return whole


def _rows_of(split: Split, whole: Split) -> NDArray[np.int64]:
    place = {key: row for row, key in enumerate(whole.ids)}
    return np.array([place[key] for key in split.ids], dtype=np.int64)


@torch.inference_mode()
def _compute(
    backbone: Backbone, split: Split, view: str, device: torch.device, workers: int, folder: Path, done: object
) -> None:
    transform = make_transform(
        backbone.image_size, backbone.mean, backbone.std, train=False, options=TransformOptions()
    )
    loader = PictureLoader(PictureDataset(split, transform), _BATCH, workers=workers)
    regions, width = backbone.grid[0] * backbone.grid[1], backbone.width
    shapes = {"pooled": (len(split), width), "regions": (len(split), regions, width)}
    kept = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float16, shape=shape)
        for name, shape in shapes.items()
    }
    for images, _, indices in loader.epoch(0):
        images = images.to(device)
        features = backbone.encode_image(images.flip(-1) if view == "mirrored" else images)
        kept["pooled"][indices.numpy()] = features.pooled.half().cpu().numpy()
        kept["regions"][indices.numpy()] = features.regions.half().cpu().numpy()
        done(len(indices))  # type: ignore[operator]
    for array in kept.values():
        array.flush()


def _key(backbone: Backbone, split: Split, view: str) -> str:
    files = []
    for path in split.paths:
        try:
            about = file_of(path).stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        files.append([str(path), about.st_size, about.st_mtime_ns])
    content = [_FORMAT, backbone.fingerprint, backbone.image_size, view, TransformOptions().test_resize, files]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
