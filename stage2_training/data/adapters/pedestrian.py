"""Pedestrian attributes: PA100K, PETA and RAPv1, each in its MATLAB file.

MATLAB readers do not agree on the field names in these files, so fields of a struct are read by position, as in the
field's usual preparation scripts.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.stage2_training.data.adapters.adapter import Adapter, Block, Published, first_existing
from sspa.stage2_training.data.adapters.mat_files import read_mat
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.protocol import Protocol


class Pa100k(Adapter):
    """PA100K: 80,000 / 10,000 / 10,000 images, 26 attributes."""

    name = "pa100k"
    title = "PA100K"
    download = "data.zip and annotation.zip, linked from github.com/xh-liu/HydraPlus-Net"
    layout = "annotation.mat | annotation/annotation.mat\ndata | release_data/release_data | release_data"
    protocols = ("pa100k",)
    label_set = "pa100k"
    label_count = 26
    published = {"train": Published(80_000), "val": Published(10_000), "test": Published(10_000)}
    usual_folders = ("PA100K", "PA100k", "PA-100K")

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        path = first_existing(root, "annotation.mat", "annotation/annotation.mat")
        images = first_existing(root, "data", "release_data/release_data", "release_data").relative_to(root).as_posix()
        content = read_mat(path)
        blocks = []
        try:
            keys = _strings(content["attributes"])
            for split in ("train", "val", "test"):
                files = _strings(content[f"{split}_images_name"])
                targets = _targets(content[f"{split}_label"])
                ids = [Path(file).stem for file in files]
                blocks.append(Block(split, ids, [f"{images}/{file}" for file in files], targets))
        except (KeyError, IndexError) as error:
            raise _not_as_published(path, error) from None
        return self.manifest(self.labels(keys), protocol, blocks)


class Peta(Adapter):
    """PETA: 9,500 / 1,900 / 7,600 images by the first of five random partitions, the first 35 of 105 attributes."""

    name = "peta"
    title = "PETA"
    download = "PETA-New.zip (images and PETA.mat), offered with mmlab.ie.cuhk.edu.hk/projects/PETA.html"
    layout = "PETA.mat\nimages"
    protocols = ("peta-35",)
    label_set = "peta"
    label_count = 35
    published = {"train": Published(9_500), "val": Published(1_900), "test": Published(7_600)}
    usual_folders = ("PETA", "PETA-New", "peta")

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        path = root / "PETA.mat"
        try:
            struct = read_mat(path)["peta"][0, 0]
            keys = _strings(struct[1])
            # The attributes follow a few columns of image and person numbers.
            targets = _targets(struct[0][:, -len(keys) :])
            partition = struct[3].ravel()[0][0, 0]
            rows = {split: _rows(partition[position]) for position, split in enumerate(("train", "val", "test"))}
            blocks = [
                Block(
                    split,
                    [f"{row + 1:05}" for row in chosen],
                    [f"images/{row + 1:05}.png" for row in chosen],
                    targets[chosen][:, : self.label_count],
                )
                for split, chosen in rows.items()
            ]
        except (KeyError, IndexError, TypeError) as error:
            raise _not_as_published(path, error) from None
        return self.manifest(self.labels(keys[: self.label_count]), protocol, blocks)


class Rapv1(Adapter):
    """RAPv1: 33,268 / 8,317 images by the first of its five random partitions, the first 51 of 92 attributes."""

    name = "rapv1"
    title = "RAPv1"
    download = "RAP_dataset and RAP_annotation, on request from www.rapdataset.com"
    layout = "RAP_annotation/RAP_annotation.mat | RAP_annotation.mat\nRAP_dataset"
    protocols = ("rapv1-51",)
    label_set = "rapv1"
    label_count = 51
    published = {"trainval": Published(33_268), "test": Published(8_317)}
    usual_folders = ("RAP", "RAPv1", "rap")

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        path = first_existing(root, "RAP_annotation/RAP_annotation.mat", "RAP_annotation.mat")
        try:
            struct = read_mat(path)["RAP_annotation"][0, 0]
            targets = _targets(struct[1])
            files, keys = _strings(struct[5]), _strings(struct[6])[: self.label_count]
            partition = struct[0].ravel()[0][0, 0]
            blocks = [
                Block(
                    split,
                    [Path(files[row]).stem for row in chosen],
                    [f"RAP_dataset/{files[row]}" for row in chosen],
                    targets[chosen][:, : self.label_count],
                )
                for split, chosen in {"train": _rows(partition[0]), "test": _rows(partition[1])}.items()
            ]
        except (KeyError, IndexError, TypeError) as error:
            raise _not_as_published(path, error) from None
        return self.manifest(self.labels(keys), protocol, blocks)


def _strings(cells: NDArray[Any]) -> list[str]:
    """The strings of an (N, 1) cell array; scipy wraps each in one or two arrays."""
    texts = []
    for cell in cells.ravel():
        while isinstance(cell, np.ndarray):
            cell = cell.ravel()[0]
        texts.append(str(cell))
    return texts


def _rows(numbers: NDArray[Any]) -> NDArray[np.int64]:
    """MATLAB's row numbers, counted from 1, as indices."""
    return numbers.ravel().astype(np.int64) - 1


def _targets(values: NDArray[Any]) -> NDArray[np.int8]:
    """(N, C): 1 present, 0 absent; any other mark (RAP's 2) is unknown."""
    return np.where(values == 1, 1, np.where(values == 0, 0, -1)).astype(np.int8)


def _not_as_published(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not built as published (missing: {error}); is it the official file?")
