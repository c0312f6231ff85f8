"""Batches for training and scoring, from cached features or from images, behind one interface.

Legend: B images of a batch, C labels.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sspa.stage2_training.backbones.contract import ImageFeatures
from sspa.stage2_training.data.loading import ImageLoader, epoch_order
from sspa.stage2_training.features.kept_features import KeptFeatures
from sspa.stage2_training.model.options import View
from sspa.stage2_training.model.views import under_view

Read = TypeVar("Read")

# Batches that are read while another is used.
_AHEAD = 2
# Images (B, 3, H, W) or their features; targets (B, C) int8; the images' indices in the split (B,).
Batch = tuple[Tensor | ImageFeatures, Tensor, Tensor]


class Batches(Protocol):
    """What the trainer and the scorer iterate over."""

    def __len__(self) -> int:
        """The number of batches per epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `start` on: a pure function of the epoch's number and the seed."""

    def unreadable(self) -> list[str]:
        """One line per image that could not be read so far, with what was done instead."""


class FeatureBatches:
    """Batches of cached features; if there are several views, one is drawn per image and epoch.

    Args:
        views: the same split under each view.
        targets: (N, C) int8.
        shuffle: a new order each epoch, without a smaller last batch and without unreadable images (training).
        rank, world: this process's share: a part of every batch (training), or of the split (scoring).
    """

    def __init__(
        self,
        views: list[KeptFeatures],
        targets: NDArray[np.int8],
        batch_size: int,
        device: torch.device,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.views, self.targets, self.device = views, targets, device
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        whole, rest = divmod(len(self._order(0)), self.batch_size)
        return max(whole, 1) if self.shuffle else whole + bool(rest)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = self._order(epoch)
        drawn = _views_of_epoch(len(self.targets), len(self.views), self.seed, epoch)

        def read(batch: int) -> tuple[ImageFeatures, Tensor, Tensor]:
            # Sorted, so that the file is read sequentially; the order within a batch only affects rounding.
            indices = np.sort(order[batch * self.batch_size : (batch + 1) * self.batch_size])
            if self.shuffle:
                indices = np.array_split(indices, self.world)[self.rank]
            features = self._take(indices, drawn[indices])
            if self.device.type == "cuda":
                features = ImageFeatures(features.pooled.pin_memory(), features.regions.pin_memory())
            return features, torch.from_numpy(self.targets[indices]), torch.from_numpy(indices)

        for features, targets, indices in read_ahead(read, range(start, len(self))):
            # Widened on the device, to which half the bytes go.
            widened = ImageFeatures(
                features.pooled.to(self.device, non_blocking=True).float(),
                features.regions.to(self.device, non_blocking=True).float(),
            )
            yield widened, targets.to(self.device), indices

    def unreadable(self) -> list[str]:
        found = dict.fromkeys(message for view in self.views for message in view.unreadable.values())
        return [f"{message} (left out)" for message in found]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The number of batches of all images (training), or of this process's (scoring)."""
        total = len(self.targets)
        if self.shuffle:
            order = epoch_order(total, self.seed, epoch)
            unreadable = [row for view in self.views for row in view.unreadable]
            return order[~np.isin(order, unreadable)] if unreadable else order
        return np.array_split(np.arange(total), self.world)[self.rank]

    def _take(self, indices: NDArray[np.int64], drawn: NDArray[np.int64]) -> ImageFeatures:
        if len(self.views) == 1:
            return self.views[0].take(indices)
        parts = [(np.flatnonzero(drawn == view), kept) for view, kept in enumerate(self.views)]
        taken = [kept.take(indices[places]) for places, kept in parts if len(places)]
        back = np.argsort(np.concatenate([places for places, _ in parts]))
        return ImageFeatures(
            torch.cat([features.pooled for features in taken])[back],
            torch.cat([features.regions for features in taken])[back],
        )


class ImageBatches:
    """Batches of images under one view, for a trained tower."""

    def __init__(self, loader: ImageLoader, device: torch.device, view: View = "plain") -> None:
        self.loader, self.device, self.view = loader, device, view

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for images, targets, indices in self.loader.epoch(epoch, start):
            images = images.to(self.device, non_blocking=True)
            yield under_view(images, self.view), targets.to(self.device), indices

    def unreadable(self) -> list[str]:
        return self.loader.report_substituted()


def read_ahead(read: Callable[[int], Read], numbers: Sequence[int]) -> Iterator[Read]:
    """`read` of each number, in order, the next few in a thread while the caller uses one."""
    with ThreadPoolExecutor(1, "features") as reader:
        waiting: deque[Future[Read]] = deque()
        try:
            for number in numbers:
                waiting.append(reader.submit(read, number))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # The caller may stop within an epoch.
            for future in waiting:
                future.cancel()


def _views_of_epoch(count: int, views: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """(count,): the view of each image in this epoch."""
    key = hashlib.sha256(f"views\0{seed}\0{epoch}".encode()).digest()[:8]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"))).integers(views, size=count)
