"""Frozen, the last blocks, or all of the image tower; batch norms and text never."""

from pathlib import Path

import pytest
import torch

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.backbones.trainable import count_values, describe_trainable, set_trainable

from .architectures import write_model


def _backbone(family: str, folder: Path) -> Backbone:
    write_model(family, folder)
    return create_backbone(f"local-dir:{folder}")


def _trained(backbone: Backbone) -> set[str]:
    return {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}


def test_the_last_block_of_a_vit_trains_with_its_head(tmp_path: Path) -> None:
    backbone = _backbone("vit", tmp_path)

    set_trainable(backbone, "last:1")

    roots = {name.removeprefix("image_tower.visual.").split(".", 1)[0] for name in _trained(backbone)}
    assert roots == {"transformer", "ln_post", "proj"}
    assert all("resblocks.2." in name for name in _trained(backbone) if ".transformer." in name)
    trained = count_values(parameter for parameter in backbone.parameters() if parameter.requires_grad)
    # One block of width 32: attention 4 x 32 x 32 + 128, MLP 2 x 32 x 128 + 160, two norms; ln_post; 32 x 40.
    assert trained == 4 * 32 * 32 + 128 + 2 * 32 * 128 + 160 + 128 + 64 + 32 * 40
    assert describe_trainable(backbone).startswith("image tower: 0.06 M parameters, 0.01 M trained")


@pytest.mark.parametrize("family", ["resnet", "timm-efficientnet", "timm-convnext", "timm-vit-registers"])
def test_more_blocks_train_more_and_nothing_before_them(family: str, tmp_path: Path) -> None:
    backbone = _backbone(family, tmp_path)
    counts = []
    for part in ("frozen", "last:1", "last:2", "all"):
        set_trainable(backbone, part)
        counts.append(len(_trained(backbone)))

    assert counts[0] == 0
    assert counts == sorted(set(counts))
    assert not any(name.startswith("text_tower") for name in _trained(backbone))


def test_training_mode_leaves_frozen_parts_and_batch_norms_alone(tmp_path: Path) -> None:
    backbone = _backbone("resnet", tmp_path)
    set_trainable(backbone, "last:1")
    before = {name: value.clone() for name, value in backbone.named_buffers()}

    backbone.train()
    backbone.encode_image(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))

    assert backbone.image_tower.visual.layer4.training
    assert not backbone.image_tower.visual.layer1.training
    assert not backbone.text_tower.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())


@pytest.mark.parametrize("part", ["some", "last", "last:0", "last:x", "last:-1"])
def test_unknown_parts_are_refused(part: str, tmp_path: Path) -> None:
    backbone = _backbone("vit", tmp_path)

    with pytest.raises(UserError, match="take frozen, all, or last:K"):
        set_trainable(backbone, part)
    with pytest.raises(UserError, match="has 3 blocks; take last:3 or fewer"):
        set_trainable(backbone, "last:4")
