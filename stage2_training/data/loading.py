"""From images to batches, reproducibly for any number of workers.

The order of an epoch is a pure function of (seed, epoch), and the augmentation of an image one of (seed, epoch,
the image's id). Neither depends on workers, batch size or what was read before.
"""

import hashlib
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.compute.cores import cores, own_cores
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.data.transforms import ImageTransform

if TYPE_CHECKING:
    from torch import Tensor

# Training continues without unreadable images until they are more than this share of the split.
UNREADABLE_SHARE = 0.01
_MOST_WORKERS = 16
# Where worker processes put what they have read; containers often have 64 MB of it.
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Sample:
    """One image ready for a batch; `message` says why another was substituted for it (or why there is none)."""

    image: "Tensor | None"
    target: "Tensor"
    index: int
    message: str = ""


class ImageDataset(TorchDataset[Any]):
    """The images of one split as tensors.

    Items are (image (3, H, W) uint8, target (C,) int8, index). The key is an index, or (epoch, index) if the
    transform varies images from epoch to epoch.

    Args:
        split: the images.
        transform: from `make_transform`.
        seed: of the augmentation.
        unreadable: "stop" raises at an image that cannot be read; "substitute" uses another one instead, chosen by
            (seed, epoch, id), with its labels and index; "blank" uses a black image.
    """

    def __init__(
        self,
        split: Split,
        transform: ImageTransform,
        seed: int = 0,
        unreadable: Literal["stop", "substitute", "blank"] = "stop",
    ) -> None:
        self.split, self.transform, self.seed, self.unreadable = split, transform, seed, unreadable

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple["Tensor", "Tensor", int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        sample = self.sample(epoch, index)
        if sample.image is None:
            raise UserError(sample.message)
        return sample.image, sample.target, sample.index

    def sample(self, epoch: int, index: int) -> Sample:
        """The image in one epoch; if there is no substitute either, `image` is None and `message` names the image."""
        message = ""
        for attempt in range(10):
            seed = _seed_of(self.seed, epoch, self.split.ids[index], attempt)
            try:
                image = self._image(index, seed)
            except UserError as error:
                message = message or str(error)
                if self.unreadable == "blank":
                    blank = self.transform(Image.new("RGB", (8, 8)))
                    return Sample(blank, torch.from_numpy(self.split.targets[index]), index, message)
                if self.unreadable == "stop":
                    break
                index = seed % len(self.split)
            else:
                return Sample(image, torch.from_numpy(self.split.targets[index]), index, message)
        return Sample(None, torch.from_numpy(self.split.targets[index]), index, message)

    def _image(self, index: int, seed: int) -> "Tensor":
        photo = load_image(self.split.paths[index], at_least=self.transform.decode_at_least)
        if not self.transform.varies:
            return self.transform(photo)
        # Not torch.manual_seed: without CUDA it formats and stores a stack trace on every call.
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            return self.transform(photo)
        finally:
            torch.set_rng_state(before)


@dataclass
class ImageLoader:
    """Batches of an ImageDataset: images (B, 3, H, W) uint8, targets (B, C) int8, indices (B,) int64.

    Args:
        dataset: the images.
        batch_size: B; the last batch of an epoch may be smaller.
        shuffle: a new order each epoch (training).
        workers: worker processes, kept alive between epochs; 0 reads in this process. "auto" starts one per core. There
            are never more than cores, or than there is shared memory for.
        drop_last: drop a smaller last batch.
        rank, world: this process's share: every world-th image, without padding. When shuffling, the few left over
            at the end of an epoch are dropped, so that all processes make the same number of steps.
        unreadable_share: more unreadable images than this share of them end the epoch.

    Attributes:
        substituted: what is wrong with each unreadable image, and how often another was substituted.
        blank: what is wrong with each image that is blank, by its index.

    Example:
        for images, targets, indices in loader.epoch(3): ...
    """

    dataset: ImageDataset
    batch_size: int
    shuffle: bool = False
    workers: int | Literal["auto"] = 0
    drop_last: bool = False
    rank: int = 0
    world: int = 1
    unreadable_share: float = UNREADABLE_SHARE
    substituted: dict[str, int] = field(default_factory=dict, init=False)
    blank: dict[int, str] = field(default_factory=dict, init=False)
    _loader: DataLoader[Any] = field(init=False)
    _batches: "_EpochBatches" = field(init=False)

    def __post_init__(self) -> None:
        self._batches = _EpochBatches(
            len(self.dataset),
            self.dataset.seed,
            self.batch_size,
            self.shuffle,
            self.drop_last,
            self.rank,
            self.world,
        )
        height, width = self.dataset.transform.size
        workers = _workers(self.workers, min(self.batch_size, len(self.dataset) or 1) * 3 * height * width)
        self._loader = DataLoader(
            _Samples(self.dataset),
            batch_sampler=self._batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            # Only for the worker seed it draws, which ours ignore: dropout's random state must not change.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple["Tensor", "Tensor", "Tensor"]]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple["Tensor", "Tensor", "Tensor"]]:
        """The batches of one epoch from number `start` on; images of earlier batches are not read.

        Raises:
            UserError: an image cannot be read (evaluation), or too many cannot (training).
        """
        self._batches.epoch, self._batches.start = epoch, start
        for batch in self._loader:
            images, targets, indices, messages, missing = batch
            if missing:
                raise UserError(next(iter(messages.values())))
            for index, message in messages.items():
                if self.dataset.unreadable == "blank":
                    self.blank[index] = message
                else:
                    self.substituted[message] = self.substituted.get(message, 0) + 1
                check_unreadable(
                    self.blank.values() or self.substituted, len(self.dataset), self.unreadable_share, "training"
                )
            yield images, targets, indices

    def report_substituted(self) -> list[str]:
        """One line per image that training could not read, with how often another was substituted."""
        return [f"{message} (another was substituted {count} times)" for message, count in self.substituted.items()]


def check_unreadable(messages: Collection[str], images: int, share: float, split: str) -> None:
    """Reject a split too many of whose images cannot be read; one of them is never too many.

    Raises:
        UserError: there are more than this share of its images.
    """
    if len(messages) > max(1.0, share * images):
        raise UserError(
            f"{len(messages)} of {images} {split} images cannot be read, more than {share:.0%}; fix the data first "
            f"(sspa-train data check --decode lists them all): {next(iter(messages))}"
        )


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of one shuffled epoch, (count,): a pure function of its arguments."""
    return np.random.Generator(np.random.Philox(key=_seed_of(seed, epoch, "order", 0))).permutation(count)


def _workers(wanted: int | Literal["auto"], batch_bytes: int) -> int:
    """How many worker processes to start; each holds two batches in shared memory."""
    # More than there are cores only take turns, and torch warns of them.
    workers = min(own_cores(), _MOST_WORKERS) if wanted == "auto" else min(wanted, cores())
    if not workers or not _SHARED_MEMORY.is_dir():
        return workers
    free = shutil.disk_usage(_SHARED_MEMORY).free
    fitting = free // (2 * batch_bytes)
    if fitting < workers:
        say(
            f"{_SHARED_MEMORY}: {free / 1e6:,.0f} MB of shared memory are enough for {fitting} of {workers} processes "
            f"that read batches of {batch_bytes / 1e6:,.0f} MB; for more, start the container with --shm-size=8g"
        )
    return min(workers, fitting)


@dataclass
class _EpochBatches:
    """Batch sampler: lists of (epoch, index), so that persistent workers learn the epoch from the key itself."""

    total: int
    seed: int
    batch_size: int
    shuffle: bool
    drop_last: bool
    rank: int
    world: int
    epoch: int = 0
    start: int = 0

    def __len__(self) -> int:
        whole, rest = divmod(self._count(), self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = epoch_order(self.total, self.seed, self.epoch) if self.shuffle else np.arange(self.total)
        mine = order[self.rank :: self.world][: self._count()]
        for batch in range(self.start, len(self)):
            part = mine[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in part]

    def _count(self) -> int:
        """This process's number of images per epoch."""
        if self.shuffle:
            return self.total // self.world
        return len(range(self.rank, self.total, self.world))


class _Samples(TorchDataset[Sample]):
    """ImageDataset.sample by (epoch, index). Problems are values: a worker's exception would be reformatted."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        return self.dataset.sample(*key)


def _collate(samples: list[Sample]) -> tuple["Tensor | None", "Tensor", "Tensor", dict[int, str], bool]:
    lost = {sample.index: sample.message for sample in samples if sample.image is None}
    targets = torch.stack([sample.target for sample in samples])
    indices = torch.tensor([sample.index for sample in samples])
    if lost:
        return None, targets, indices, lost, True
    images = torch.stack([sample.image for sample in samples if sample.image is not None])
    return images, targets, indices, {sample.index: sample.message for sample in samples if sample.message}, False


def _seed_of(seed: int, epoch: int, key: str, attempt: int) -> int:
    """63 bits of a hash, so that neighbouring seeds and epochs are unrelated."""
    text = f"{seed}\0{epoch}\0{key}\0{attempt}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1
