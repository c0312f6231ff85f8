"""How fast pictures load: our loader by number of workers, beside a bare Pillow and torchvision loop."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch.utils.data import DataLoader

from sspa.shared.errors import UserError
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.data.loading import PictureDataset, PictureLoader
from sspa.stage2_training.data.transforms import make_transform

_BATCH = 32


@dataclass(frozen=True)
class Throughput:
    """Pictures a second, best of the rounds, with `workers` processes."""

    workers: int
    ours: float
    bare: float


def measure_throughput(split: Split, size: int, workers: tuple[int, ...], rounds: int) -> Iterator[Throughput]:
    """Read the split `rounds` times each way, in turn, for every number of workers; starting workers does not count.

    "Bare" opens, converts and squashes each picture to `size` with torchvision, and stacks batches: no checks, no EXIF,
    no seeds, but the same JPEG draft decoding, so that what is compared is the rest.

    Raises:
        UserError: the split has no more than one batch.
    """
    if len(split) <= _BATCH:
        raise UserError(f"{len(split)} pictures are too few to time; read a split with more than {_BATCH}")
    norm = (0.5, 0.5, 0.5)
    ours = PictureDataset(split, make_transform((size, size), norm, norm, train=False))
    for count in workers:
        best = {"ours": 0.0, "bare": 0.0}
        for _ in range(rounds):
            # New loaders each time: workers of one must not inherit the other's.
            best["ours"] = max(best["ours"], _rate(PictureLoader(ours, _BATCH, workers=count).epoch(0), len(split)))
            bare = DataLoader(_Bare(split, size), batch_size=_BATCH, num_workers=count)
            best["bare"] = max(best["bare"], _rate(iter(bare), len(split)))
        yield Throughput(count, best["ours"], best["bare"])


class _Bare(torch.utils.data.Dataset[torch.Tensor]):
    """The loop a quick script would have."""

    def __init__(self, split: Split, size: int) -> None:
        from torchvision.transforms import v2

        self.split, self.size = split, size
        self.transform = v2.Compose(
            [
                v2.Resize((size, size), antialias=True),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.split.paths[index]) as picture:
            picture.draft("RGB", (self.size, self.size))
            tensor: torch.Tensor = self.transform(picture.convert("RGB"))
        return tensor


def _rate(batches: Iterator[object], pictures: int) -> float:
    """Pictures a second from the first batch on, so that starting workers does not count."""
    first = next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    read = pictures - len(first[0] if isinstance(first, tuple) else first)  # type: ignore[arg-type]
    return read / (time.perf_counter() - start)
