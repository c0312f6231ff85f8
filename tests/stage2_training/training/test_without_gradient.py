"""No trained parameter's gradient is rounding noise: Adam would turn it into steps that differ between processors."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.model.heads import create_head
from sspa.stage2_training.model.loss_options import BceOptions, Loss
from sspa.stage2_training.model.losses import total_loss
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.training.without_gradient import leave_out_without_gradient

from ..backbones.architectures import FAMILIES, write_model
from ..model.small_models import LABELS, small_backbone, some_features, some_knowledge, some_targets
from ..model.test_heads import HEADS
from ..model.test_losses import LOSSES

# In float64 a sum that should be zero is smaller than this, relative to the gradients beside it.
_NOISE = 1e-12


def _noisy(parts: dict[str, nn.Module]) -> list[str]:
    """The trained parameters without a gradient, or whose gradient is at least a tenth noise."""
    gradients = {
        f"{part}.{name}": torch.zeros(1) if parameter.grad is None else parameter.grad.abs()
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    largest = max(float(gradient.max()) for gradient in gradients.values())
    return [
        name
        for name, gradient in gradients.items()
        if gradient.max() < _NOISE * largest
        or ((gradient > 0) & (gradient < _NOISE * gradient.max())).double().mean() > 0.1
    ]


def _targets() -> torch.Tensor:
    return torch.randint(-1, 2, (6, len(LABELS)), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return small_backbone(tmp_path_factory.mktemp("backbone")).double()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.kind)
@pytest.mark.parametrize("name", HEADS)
def test_of_every_head_under_every_loss(name: str, loss: Loss, backbone: Backbone) -> None:
    torch.manual_seed(0)
    head = create_head(HEADS[name], backbone.width)
    head.bind(backbone, some_knowledge())
    head.initialise(some_features(32), some_targets(32), head.encode_labels(backbone))
    with torch.no_grad():  # parts that start at zero would hide what goes through them
        for parameter in head.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    head.double()
    leave_out_without_gradient(head, nn.Module(), loss)

    features = some_features(6)
    features = type(features)(features.pooled.double(), features.regions.double())
    logits = head(features, head.encode_labels(backbone)).logits
    total_loss(dict(logits), _targets(), loss).backward()

    assert not _noisy({"head": head})


@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_image_tower(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_model(family, tmp_path)
    backbone = create_backbone(f"local-dir:{tmp_path}")
    head = create_head(HEADS["sspa"], backbone.width)
    head.bind(backbone, some_knowledge())
    recognizer = Recognizer(backbone, head).double()
    backbone.text_tower.requires_grad_(False)
    with torch.no_grad():
        for parameter in recognizer.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    leave_out_without_gradient(head, backbone.image_tower, BceOptions())

    images = torch.randn(6, 3, *backbone.image_size, dtype=torch.float64)
    # Not by encode_image, whose result is float32.
    logits = recognizer(backbone.image_tower(images)).logits
    total_loss(dict(logits), _targets(), BceOptions()).backward()

    assert not _noisy({"image_tower": backbone.image_tower, "head": head})
