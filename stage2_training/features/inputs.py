"""The batches of a data set for one backbone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.compute.processes import ALONE, Processes
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.data.dataset import Dataset, Split
from sspa.stage2_training.data.loading import ImageDataset, ImageLoader, check_unreadable
from sspa.stage2_training.data.transforms import ImageTransform, make_transform
from sspa.stage2_training.features.batches import Batches, FeatureBatches, ImageBatches
from sspa.stage2_training.features.kept_features import FeatureCache, KeptFeatures
from sspa.stage2_training.model.heads import reads_regions
from sspa.stage2_training.model.options import View


class Inputs:
    """The batches of a data set for one backbone: cached features if the tower is frozen, else images."""

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        backbone: Backbone,
        device: torch.device,
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.dataset, self.backbone, self.device = config, dataset, backbone, device
        self.frozen = config.backbone.tower == "frozen"
        self.processes = processes
        self._cache = FeatureCache(backbone, device, config.data.workers, reads_regions(config.model), processes)

    def belong_to(self, run: Path) -> None:
        """Say in the cache that its features are used for this run's folder."""
        self._cache.belong_to(run)

    def keep_features(self, *wanted: tuple[Sequence[Split], tuple[View, ...]]) -> None:
        """If the tower is frozen, compute the missing features of splits, each with its views, all in one pass.

        All processes take part.
        """
        if self.frozen:
            self._cache.keep(*wanted)

    def check_batch_size(self) -> int:
        """The number of images of a training batch that are this process's.

        Raises:
            UserError: the train split is smaller than one batch, or a batch cannot be divided among the processes.
        """
        images, size = len(self.split("train")), self.config.training.batch_size
        share = self.processes.share_of(size)
        if images < size and not (self.frozen and self.processes.world == 1):
            raise UserError(
                f"the train split has {images} images, less than one batch; "
                f"take --set training.batch_size={max(images // self.processes.world, 1) * self.processes.world}"
            )
        return share

    def training(self) -> Batches:
        """The train split, shuffled and augmented; this process's share of each batch.

        Raises:
            UserError: see `check_batch_size`.
        """
        options, split, share = self.config.training, self.split("train"), self.check_batch_size()
        rank, world = self.processes.rank, self.processes.world
        allowed = self.config.data.unreadable_share
        if self.frozen:
            views = [self._kept(split, view) for view in options.views]
            for kept in views:
                check_unreadable(list(kept.unreadable.values()), len(split), allowed, "training")
            return FeatureBatches(
                views, split.targets, options.batch_size, self.device, True, options.seed, rank=rank, world=world
            )
        transform = self._transform(train=True, views=options.views)
        images = ImageDataset(split, transform, options.seed, unreadable="substitute")
        loader = ImageLoader(
            images,
            share,
            shuffle=True,
            workers=self.config.data.workers,
            drop_last=True,
            rank=rank,
            world=world,
            unreadable_share=allowed,
        )
        return ImageBatches(loader, self.device)

    def scoring(self, split: Split, unreadable: Literal["stop", "blank"] = "stop") -> list[Batches]:
        """One split in its own order, once per view; this process's share of it.

        Args:
            split: one of the data set's, or a part of one.
            unreadable: "blank": what is said of an image that cannot be read means nothing, and is not used.

        Raises:
            UserError: there are more processes than images, or an image cannot be read.
        """
        options, rank, world = self.config.evaluation, self.processes.rank, self.processes.world
        if len(split) < world:
            raise UserError(f"the {split.name} split has {len(split)} images for {world} processes; start fewer")
        if self.frozen:
            views = [self._kept(split, view) for view in options.views]
            problems = {message for kept in views for message in kept.unreadable.values()}
            if problems and unreadable == "stop":
                raise UserError(
                    f"{len(problems)} of {len(split)} {split.name} images cannot be read; replace them, or score "
                    f"without them (--set data.unreadable=leave-out), or list them all (sspa-train data check "
                    f"--decode): {min(problems)}"
                )
            return [
                FeatureBatches([kept], split.targets, options.batch_size, self.device, rank=rank, world=world)
                for kept in views
            ]
        images = ImageDataset(split, self._transform(train=False), unreadable=unreadable)
        loader = ImageLoader(images, options.batch_size, workers=self.config.data.workers, rank=rank, world=world)
        return [ImageBatches(loader, self.device, view) for view in options.views]

    def split(self, name: str) -> Split:
        """One split of the data set.

        Raises:
            UserError: the data set has no such split.
        """
        return self.dataset.split(name)

    @torch.inference_mode()
    def sample(self, batches: Batches, count: int) -> tuple[ImageFeatures, torch.Tensor]:
        """The first training images of epoch 0, about `count` of them (N), and their targets (N, C)."""
        pooled, regions, known = [], [], []
        for inputs, targets, indices in batches.epoch(0):
            features = self.backbone.encode_image(inputs) if isinstance(inputs, torch.Tensor) else inputs
            pooled.append(features.pooled)
            regions.append(features.regions)
            known.append(targets)
            if len(pooled) * len(indices) >= count:
                break
        return ImageFeatures(torch.cat(pooled), torch.cat(regions)), torch.cat(known)

    def _kept(self, split: Split, view: View) -> KeptFeatures:
        return self._cache.kept([split], view)[0]

    def _transform(self, train: bool, views: tuple[View, ...] = ()) -> ImageTransform:
        options = self.config.data.transform_options(views)
        return make_transform(self.backbone.image_size, train, options, self.backbone.mean)
