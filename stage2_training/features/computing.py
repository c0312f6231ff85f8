"""Computes entries of the feature cache: a split through the frozen image tower, every view in one pass.

Processes that share the cache share the work. Each takes every so-and-so-manieth batch and writes its rows of the
common files, so that the bytes are the same for any number of processes.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.files import replacing_folder
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.compute.environment import environment
from sspa.stage2_training.compute.processes import Processes
from sspa.stage2_training.data.dataset import Split, rows_of_split
from sspa.stage2_training.data.loading import ImageDataset, ImageLoader
from sspa.stage2_training.data.transforms import make_transform
from sspa.stage2_training.features.cache_entries import About, common_folder, describe
from sspa.stage2_training.model.options import View
from sspa.stage2_training.model.views import under_view

# An array of an entry, and the part of the image features that it holds.
Kind = Literal["pooled", "regions"]
PROBLEMS = "unreadable.json"
_BATCH = 32


def entry_shapes(backbone: Backbone, kinds: tuple[Kind, ...], images: int) -> dict[Kind, tuple[int, ...]]:
    """The shape of each array of an entry."""
    regions = backbone.grid[0] * backbone.grid[1]
    shapes: dict[Kind, tuple[int, ...]] = {
        "pooled": (images, backbone.width),
        "regions": (images, regions, backbone.width),
    }
    return {kind: shapes[kind] for kind in kinds}


class EntryWriter:
    """Computes and writes entries with one backbone; `kinds` are the parts of the image features that they hold.

    Args:
        done: called in the first process with the number of images that were computed in the meantime.
    """

    def __init__(
        self,
        backbone: Backbone,
        kinds: tuple[Kind, ...],
        device: torch.device,
        workers: int | Literal["auto"],
        processes: Processes,
        done: Callable[[int], None],
    ) -> None:
        self._backbone, self._kinds, self._device, self._workers = backbone, kinds, device, workers
        self._processes, self._done = processes, done

    def write(self, split: Split, folders: Mapping[View, Path]) -> None:
        """Compute a split's features under several views, each image decoded once, and keep each view's as an entry.

        Images that cannot be read are recorded; their features are those of a blank image. All processes take part.

        Raises:
            UserError: an entry cannot be written; then there is none.
        """
        processes = self._processes
        with ExitStack() as opened:

            def prepare() -> dict[View, Path]:
                places = {}
                for view, folder in folders.items():
                    places[view] = opened.enter_context(replacing_folder(folder, keep_theirs=True))
                    for kind, shape in entry_shapes(self._backbone, self._kinds, len(split)).items():
                        _new_array(places[view] / f"{kind}.npy", shape)
                return places

            places = processes.first(prepare)
            found = processes.of_each(processes.everywhere(lambda: self._write_share(split, places)))

            def finish() -> None:
                problems = {row: problem for part in found for row, problem in part.items()}
                self._finish(split, places, dict(sorted(problems.items())))
                opened.close()  # now the folders get their names

            processes.first(finish)

    @torch.inference_mode()
    def _write_share(self, split: Split, places: Mapping[View, Path]) -> dict[int, str]:
        """Compute and write this process's batches; returns what is wrong with images that cannot be read, by row."""
        backbone = self._backbone
        rows = _share_of(len(split), self._processes)
        own = rows_of_split(split, rows)
        transform = make_transform(backbone.image_size, train=False)
        # Whether there are too many is for those to say who use the features.
        images_of = ImageDataset(own, transform, unreadable="blank")
        loader = ImageLoader(images_of, _BATCH, workers=self._workers, unreadable_share=1.0)
        try:
            with ExitStack() as opened:
                files = {
                    (view, kind): opened.enter_context((place / f"{kind}.npy").open("r+b"))
                    for view, place in places.items()
                    for kind in self._kinds
                }
                for images, _, indices in loader.epoch(0):  # in the order of the split
                    images = images.to(self._device)
                    first = int(rows[int(indices[0])])
                    for view in places:
                        features = backbone.encode_image(under_view(images, view))
                        for kind in self._kinds:
                            values = getattr(features, kind).half().cpu().contiguous().numpy()
                            # From the end, since before the rows there is a header.
                            files[view, kind].seek((first - len(split)) * values[0].nbytes, os.SEEK_END)
                            files[view, kind].write(values.data)
                    # With what the others have done meanwhile: only the first process shows it.
                    self._done(min(_BATCH * self._processes.world, len(split) - first))
        except OSError as error:
            raise UserError(f"the cache of features cannot be written ({error.strerror})") from error
        # Without the file's name: the entry serves other copies of it too.
        return {int(rows[place]): said.removeprefix(f"{own.paths[place]}: ") for place, said in loader.blank.items()}

    def _finish(self, split: Split, places: Mapping[View, Path], problems: Mapping[int, str]) -> None:
        for view, place in places.items():
            if problems:
                (place / PROBLEMS).write_text(json.dumps(problems, indent=1) + "\n", encoding="utf-8")
            about = About(
                split=split.name,
                images=len(split),
                images_in=common_folder(split.paths),
                view=view,
                backbone=self._backbone.name,
                image_size=self._backbone.image_size,
                computed_on=environment(self._device),
            )
            describe(place, about)


def _share_of(images: int, processes: Processes) -> NDArray[np.int64]:
    """The rows of this process's batches, in order: whole batches, so that each is what one process would compute."""
    rows = np.arange(images)
    return rows[rows // _BATCH % processes.world == processes.rank]


def _new_array(file: Path, shape: tuple[int, ...]) -> None:
    """An array's file of its whole length, for rows to be written in any order."""
    # Not through a memory map: on a full disk, writing to one ends the process with SIGBUS.
    with file.open("wb") as opened:
        header = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(opened, header)
        opened.truncate(opened.tell() + 2 * int(np.prod(shape)))
