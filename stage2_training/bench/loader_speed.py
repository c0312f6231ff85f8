"""Image loading speed: our loader by number of workers, compared with a bare Pillow and torchvision loop."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sspa.shared.errors import UserError
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.data.loading import ImageDataset, ImageLoader
from sspa.stage2_training.data.transforms import make_transform

_BATCH = 32


@dataclass(frozen=True)
class Throughput:
    """Images per second, best of all rounds, with `workers` processes."""

    workers: int
    ours: float
    bare: float


def measure_throughput(split: Split, size: int, workers: tuple[int, ...], rounds: int) -> Iterator[Throughput]:
    """Read the split `rounds` times with each loader, in turn, for every number of workers; start-up is not timed.

    "Bare" opens, converts and squashes each image to `size` with torchvision, and stacks batches: no checks, no EXIF,
    no seeds, but with the same JPEG draft decoding, so that only the rest is compared.

    Raises:
        UserError: the split has no more than one batch.
    """
    _check_enough(split)
    ours = ImageDataset(split, make_transform((size, size), train=False))
    for count in workers:
        best = {"ours": 0.0, "bare": 0.0}
        for _ in range(rounds):
            # New loaders each time, so that the workers of one do not inherit those of the other.
            best["ours"] = max(best["ours"], _rate(ImageLoader(ours, _BATCH, workers=count).epoch(0), len(split)))
            bare = DataLoader(_Bare(split, size), batch_size=_BATCH, num_workers=count)
            best["bare"] = max(best["bare"], _rate(iter(bare), len(split)))
        yield Throughput(count, best["ours"], best["bare"])


def loading_rate(split: Split, size: tuple[int, int], workers: int, rounds: int) -> float:
    """Images per second of our loader for tensors of `size`, the best of all rounds.

    Raises:
        UserError: the split has no more than one batch.
    """
    _check_enough(split)
    images = ImageDataset(split, make_transform(size, train=False))
    return max(_rate(ImageLoader(images, _BATCH, workers=workers).epoch(0), len(split)) for _ in range(rounds))


def drawn_split(folder: Path, count: int = 4 * _BATCH) -> Split:
    """JPEGs of 500x375 pixels in `folder`, with clouds and some noise: about as large on disk as photos."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        clouds = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(clouds, dtype=np.int16) + generator.integers(-12, 13, (375, 500, 3))
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    ids = tuple(path.name for path in paths)
    return Split("drawn", ids, tuple(paths), np.zeros((count, 1), dtype=np.int8))


class _Bare(torch.utils.data.Dataset[torch.Tensor]):
    """The loop that a quick script would use."""

    def __init__(self, split: Split, size: int) -> None:
        from torchvision.transforms import v2

        self.split, self.size = split, size
        self.transform = v2.Compose([v2.Resize((size, size), antialias=True), v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.split.paths[index]) as image:
            image.draft("RGB", (self.size, self.size))
            tensor: torch.Tensor = self.transform(image.convert("RGB"))
        return tensor


def _check_enough(split: Split) -> None:
    if len(split) <= _BATCH:
        raise UserError(f"{len(split)} images are too few to time; read a split with more than {_BATCH}")


def _rate(batches: Iterator[object], images: int) -> float:
    """Images per second after the first batch, so that starting workers is not timed."""
    first = next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    read = images - len(first[0] if isinstance(first, tuple) else first)  # type: ignore[arg-type]
    return read / (time.perf_counter() - start)
