"""A small random backbone and a little knowledge for tests of heads."""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import torch

from sspa.shared.knowledge import Knowledge
from sspa.shared.label_sets import Label
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.backbones.factory import create_backbone

from ..backbones.architectures import write_model

LABELS = ("cat", "dining table", "person", "bus", "potted plant")


def small_backbone(folder: Path) -> Backbone:
    """A CLIP ViT of width 32, d = 40, M = 16, with random weights."""
    write_model("vit", folder)
    return create_backbone(f"local-dir:{folder}")


def some_knowledge(labels: Sequence[str] = LABELS, descriptions: int = 1) -> Knowledge:
    """Descriptions of `labels`, keys equal to texts."""
    return Knowledge(
        path=Path("knowledge.parquet"),
        labels=tuple(Label(key=label, text=label) for label in labels),
        domain="natural",
        content_hash="0" * 64,
        descriptions=MappingProxyType(
            {label: tuple(f"{label} has {number} parts." for number in range(descriptions)) for label in labels}
        ),
    )


def some_targets(count: int, labels: int = len(LABELS), seed: int = 0) -> torch.Tensor:
    """Random targets of `count` images: 1, 0, and -1 for unknown."""
    return torch.randint(-1, 2, (count, labels), generator=torch.Generator().manual_seed(seed))


def some_features(count: int, width: int = 40, regions: int = 16, seed: int = 0) -> ImageFeatures:
    """Random features of `count` images with a common component, like those of real towers."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(count, regions, width, generator=generator) + torch.randn(width, generator=generator)
    return ImageFeatures(maps.mean(dim=1), maps)
