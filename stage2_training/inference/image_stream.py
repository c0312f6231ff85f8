"""Tags any number of images in bounded memory.

Legend: B images, C labels.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sspa.shared.errors import UserError
from sspa.stage2_training.compute.cores import own_cores
from sspa.stage2_training.data.image_files import EncodedImage, load_sized
from sspa.stage2_training.inference.region_maps import strongest_region
from sspa.stage2_training.inference.tagger import Tagger

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Tagged:
    """One image's probabilities (C,) and, per label, the box (left, top, right, bottom) of its strongest region, in
    pixels of the upright image; None if the head has no regions or boxes were not requested. `name` is its path or
    address."""

    name: str
    probabilities: NDArray[np.float32]
    boxes: list[Box] | None


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and why."""

    name: str
    reason: str


def tag_images(
    tagger: Tagger, images: Iterable[Path | EncodedImage], boxes: bool = False, batch_size: int = 32
) -> Iterator[Tagged | Unreadable]:
    """Each image's tags, in the given order; threads read ahead, and a few batches are in memory at a time."""
    # Pillow decodes outside Python's lock, so that threads serve as well as processes.
    with ThreadPoolExecutor(own_cores()) as readers:
        left = iter(images)

        def read_next(count: int) -> list[Future[_Read | Unreadable]]:
            return [readers.submit(_read, tagger, image) for image in islice(left, count)]

        waiting: deque[Future[_Read | Unreadable]] = deque(read_next(2 * batch_size))
        while waiting:
            batch = [waiting.popleft().result() for _ in range(min(batch_size, len(waiting)))]
            waiting.extend(read_next(batch_size))
            yield from _tag(tagger, batch, boxes)


@dataclass(frozen=True)
class _Read:
    name: str
    image: Tensor
    size: tuple[int, int]


def _read(tagger: Tagger, image: Path | EncodedImage) -> _Read | Unreadable:
    try:
        photo, size = load_sized(image, tagger.transform.decode_at_least)
    except UserError as error:
        return Unreadable(str(image), str(error))
    return _Read(str(image), tagger.transform(photo), size)


def _tag(tagger: Tagger, batch: list[_Read | Unreadable], boxes: bool) -> Iterator[Tagged | Unreadable]:
    read = [item for item in batch if isinstance(item, _Read)]
    rows: Iterator[tuple[NDArray[np.float32], list[Box] | None]] = iter(())
    if read:
        images = torch.stack([item.image for item in read])
        probabilities, maps = tagger.maps(images) if boxes else (tagger.probabilities(images), None)
        rows = (
            (row, None if maps is None else [strongest_region(of_label, item.size) for of_label in maps[index]])
            for index, (item, row) in enumerate(zip(read, probabilities, strict=True))
        )
    for item in batch:
        yield Tagged(item.name, *next(rows)) if isinstance(item, _Read) else item
