"""Folded towers compute what they did before."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sspa.stage2_training.backbones.contract import ImageFeatures, ImageTower
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.backbones.folding import fold_batch_norms

from .architectures import write_model


def norms_in(tower: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in tower.modules())


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "left"),
    [("resnet", 0), ("timm-efficientnet", 0), ("timm-resnet", 1)],  # one stands alone, after a stem of its own
)
def test_norms_are_folded_and_the_features_stay(family: str, left: int, tmp_path: Path) -> None:
    write_model(family, tmp_path)
    backbone = create_backbone(f"local-dir:{tmp_path}")
    norms = norms_in(backbone.image_tower)
    images = torch.rand(3, 3, *backbone.image_size, generator=torch.Generator().manual_seed(1))
    before = backbone.encode_image(images)

    assert fold_batch_norms(backbone.image_tower, backbone.image_size) == norms - left

    assert norms_in(backbone.image_tower) == left
    after = backbone.encode_image(images)
    for one, other in ((before.pooled, after.pooled), (before.regions, after.regions)):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


class _Crossed(ImageTower):
    """Registers its norm after the one convolution, and applies it to the other."""

    grid = (4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 4, stride=4)
        self.second = nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> ImageFeatures:
        maps = self.second(torch.relu(self.norm(self.first(images))))
        return ImageFeatures(maps.mean((2, 3)), maps.flatten(2).mT)

    def blocks(self) -> list[nn.Module]:
        return []

    def head(self) -> list[nn.Parameter]:
        return []


@torch.no_grad()
def test_a_tower_that_is_built_otherwise_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    tower = _Crossed().eval()
    nn.init.uniform_(tower.norm.weight, 0.5, 1.5)
    images = torch.rand(2, 3, 16, 16)
    before, names = tower(images), [name for name, _ in tower.named_modules()]
    assert fold_batch_norms(tower, (16, 16)) == 0
    assert [name for name, _ in tower.named_modules()] == names
    torch.testing.assert_close(tower(images).regions, before.regions, rtol=0, atol=0)


@torch.no_grad()
def test_a_transformer_has_nothing_to_fold(tmp_path: Path) -> None:
    write_model("vit", tmp_path)
    backbone = create_backbone(f"local-dir:{tmp_path}")
    assert fold_batch_norms(backbone.image_tower, backbone.image_size) == 0
