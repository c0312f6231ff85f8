"""The regions of each kind of tower, against plain formulas."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.factory import create_backbone

from .architectures import write_model


def _images(size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_projected_regions_of_a_vit_are_its_normed_and_projected_tokens(tmp_path: Path) -> None:
    visual = write_model("vit", tmp_path).visual
    images = _images((64, 64))

    tokens = visual.forward_intermediates(images, indices=1, normalize_intermediates=True, output_fmt="NLC")

    regions = create_backbone(f"local-dir:{tmp_path}").encode_image(images).regions
    torch.testing.assert_close(regions, tokens["image_intermediates"][0] @ visual.proj, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_value_regions_of_a_vit_let_each_token_read_itself(tmp_path: Path) -> None:
    visual = write_model("vit", tmp_path).visual
    images = _images((64, 64))
    x = visual._embeds(images)
    for block in visual.transformer.resblocks[:-1]:
        x = block(x)
    last = visual.transformer.resblocks[-1]
    values = F.linear(last.ln_1(x), last.attn.in_proj_weight[-32:], last.attn.in_proj_bias[-32:])
    x = x + last.attn.out_proj(values)
    x = x + last.mlp(last.ln_2(x))

    value = create_backbone(f"local-dir:{tmp_path}", regions="value").encode_image(images)
    projected = create_backbone(f"local-dir:{tmp_path}").encode_image(images)

    torch.testing.assert_close(value.regions, visual.ln_post(x[:, 1:]) @ visual.proj, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(value.pooled, projected.pooled)
    assert not torch.allclose(value.regions, projected.regions, atol=1e-3)


@pytest.mark.parametrize("family", ["timm-vit-class-token", "timm-vit-registers"])
@torch.no_grad()
def test_value_regions_of_a_timm_vit_let_each_token_read_itself(family: str, tmp_path: Path) -> None:
    model = write_model(family, tmp_path)
    trunk, prefix = model.visual.trunk, model.visual.trunk.num_prefix_tokens
    backbone = create_backbone(f"local-dir:{tmp_path}", regions="value")
    images = _images(backbone.image_size)
    states: list[Tensor] = []
    hook = trunk.blocks[-1].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    trunk.forward_features(images)
    hook.remove()
    x, last = states[0], trunk.blocks[-1]
    width = x.shape[-1]
    values = last.norm1(x) @ last.attn.qkv.weight[-width:].T
    values = values + (0 if last.attn.qkv.bias is None else last.attn.qkv.bias[-width:])
    x = x + last.ls1(last.attn.proj(values))
    x = x + last.ls2(last.mlp(last.norm2(x)))
    expected = model.visual.head(trunk.fc_norm(trunk.norm(x)[:, prefix:]))
    assert states[0].shape[1] == prefix + 16

    torch.testing.assert_close(backbone.encode_image(images).regions, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_default_regions_of_a_resnet_are_its_value_projection(tmp_path: Path) -> None:
    visual = write_model("resnet", tmp_path).visual
    images = _images((128, 64))
    last_stage = visual.forward_intermediates(images, indices=[4], intermediates_only=True)["image_intermediates"][0]

    regions = create_backbone(f"local-dir:{tmp_path}", image_size=(128, 64)).encode_image(images).regions

    pool = visual.attnpool
    for image in range(2):
        for row in range(4):
            for column in range(2):
                expected = pool.c_proj(pool.v_proj(last_stage[image, :, row, column]))
                torch.testing.assert_close(regions[image, 2 * row + column], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_projected_regions_of_a_resnet_attend_from_each_position(tmp_path: Path) -> None:
    visual = write_model("resnet", tmp_path).visual
    images = _images((64, 64))
    features = visual.forward_intermediates(images, indices=[4], intermediates_only=True)["image_intermediates"][0]
    pool = visual.attnpool
    tokens = features.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + pool.positional_embedding
    head = pool.q_proj.out_features // pool.num_heads
    expected = torch.zeros_like(tokens)
    for start in range(0, tokens.shape[-1], head):
        part = slice(start, start + head)
        queries, keys, values = (layer(tokens)[..., part] for layer in (pool.q_proj, pool.k_proj, pool.v_proj))
        expected[..., part] = (queries @ keys.transpose(1, 2) / head**0.5).softmax(dim=-1) @ values

    found = create_backbone(f"local-dir:{tmp_path}", regions="projected").encode_image(images)

    torch.testing.assert_close(found.regions, pool.c_proj(expected)[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.pooled, visual(images), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_regions_of_an_average_pooled_tower_have_the_pooled_feature_as_their_mean(tmp_path: Path) -> None:
    write_model("timm-efficientnet", tmp_path)

    features = create_backbone(f"local-dir:{tmp_path}", image_size=(96, 64)).encode_image(_images((96, 64)))

    torch.testing.assert_close(features.regions.mean(dim=1), features.pooled, atol=1e-5, rtol=1e-5)


def test_a_convolutional_tower_has_no_value_path(tmp_path: Path) -> None:
    write_model("timm-efficientnet", tmp_path)

    with pytest.raises(UserError, match="take regions=projected"):
        create_backbone(f"local-dir:{tmp_path}", regions="value")
    with pytest.raises(UserError, match="regions=tokens: unknown; one of default, projected, value"):
        create_backbone(f"local-dir:{tmp_path}", regions="tokens")  # type: ignore[arg-type]


@pytest.mark.parametrize("grid", [(2, 2), (1, 4), (4, 4), (3, 1)])
@torch.no_grad()
def test_coarser_regions_are_means_over_cells(grid: tuple[int, int], tmp_path: Path) -> None:
    write_model("vit", tmp_path)
    own = create_backbone(f"local-dir:{tmp_path}")
    assert own.grid == (4, 4)
    coarser = create_backbone(f"local-dir:{tmp_path}", region_grid=grid)
    images = _images((64, 64))
    fine, coarse = own.encode_image(images), coarser.encode_image(images)
    torch.testing.assert_close(coarse.pooled, fine.pooled)
    assert coarser.grid == grid
    assert coarser.fingerprint != own.fingerprint
    cells = fine.regions.unflatten(1, (4, 4))
    for row in range(grid[0]):
        for column in range(grid[1]):
            # As adaptive pooling cuts: from the floor to the ceiling, so that cells may overlap.
            rows, columns = (
                slice(4 * place // count, -(-4 * (place + 1) // count))
                for place, count in zip((row, column), grid, strict=True)
            )
            expected = cells[:, rows, columns].mean(dim=(1, 2))
            torch.testing.assert_close(coarse.regions[:, row * grid[1] + column], expected)


def test_regions_are_not_made_finer(tmp_path: Path) -> None:
    write_model("vit", tmp_path)
    with pytest.raises(UserError, match=r"region_grid=\[5, 4\]: this image tower has 4 rows and 4 columns"):
        create_backbone(f"local-dir:{tmp_path}", region_grid=(5, 4))
