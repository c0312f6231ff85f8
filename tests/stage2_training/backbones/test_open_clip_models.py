"""Every architecture family gives the same features as open_clip itself."""

import logging
from copy import deepcopy
from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.backbones.factory import create_backbone

from .architectures import FAMILIES, write_model

TEXTS = ["a photo of a cat", "dining table", "a person riding a very small horse over a hill"]
NOT_CUT = ("vit-average-pooled", "timm-siglip")


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, nn.Module, Backbone]:
    folder = tmp_path_factory.mktemp(request.param)
    reference = write_model(request.param, folder)
    return request.param, reference, create_backbone(f"local-dir:{folder}")


def _exact(module: nn.Module) -> nn.Module:
    """A copy in float64, where kernels that sum in different orders still agree."""
    return deepcopy(module).double()


def _images(size: tuple[int, int], count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_image_features_equal_open_clips(pair: tuple[str, nn.Module, Backbone]) -> None:
    family, reference, backbone = pair
    images = _images(backbone.image_size)

    features = backbone.encode_image(images)

    if family.startswith("timm") and "vit" not in family and "siglip" not in family:
        # The adapter convolves with channels last, which sums in another order: let the reference do so too.
        reference.visual.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(features.pooled, reference.encode_image(images), atol=1e-6, rtol=1e-6)
    assert features.regions.shape == (2, backbone.grid[0] * backbone.grid[1], backbone.width)


@torch.no_grad()
def test_text_features_equal_open_clips(pair: tuple[str, nn.Module, Backbone]) -> None:
    _, reference, backbone = pair
    ids = open_clip.SimpleTokenizer(context_length=24)(TEXTS)
    in_float32 = reference.encode_text(ids)
    exact, expected = _exact(backbone), _exact(reference).encode_text(ids)

    assert torch.equal(backbone.tokenize(TEXTS), ids)
    torch.testing.assert_close(exact.text_tower(exact.embed_tokens(ids), ids), expected, atol=1e-6, rtol=1e-6)
    # Cut after the longest end token, the same sums run over fewer zeros.
    torch.testing.assert_close(exact.encode_prompts(exact.embed_tokens(ids), ids), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(exact.encode_text(TEXTS), expected, atol=1e-6, rtol=1e-6)
    # In float32 rounding differs in the last digits, by what kernel the processor offers.
    torch.testing.assert_close(backbone.encode_text(TEXTS), in_float32, atol=5e-6, rtol=1e-6)


def test_only_a_causal_tower_is_cut(pair: tuple[str, nn.Module, Backbone]) -> None:
    family, _, backbone = pair
    ids = backbone.tokenize(TEXTS)

    longest = max(backbone.token_counts(TEXTS))

    assert longest < 24
    assert backbone.used_length(ids) == (24 if family in NOT_CUT else longest)


def test_gradients_reach_prompts_and_images(pair: tuple[str, nn.Module, Backbone]) -> None:
    _, _, backbone = pair
    ids = backbone.tokenize(TEXTS)
    vectors = backbone.embed_tokens(ids).detach().requires_grad_()
    backbone.encode_prompts(vectors, ids).square().sum().backward()
    assert vectors.grad is not None
    assert vectors.grad[:, 1].abs().amin(dim=-1).max() > 0

    images = _images(backbone.image_size, count=1).requires_grad_()
    backbone.encode_image(images).regions.square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize("family", ["vit", "resnet", "timm-convnext", "timm-vit-class-token"])
@torch.no_grad()
def test_other_sizes_and_rectangles_change_the_grid_only(family: str, tmp_path: Path) -> None:
    write_model(family, tmp_path)
    stride = 32 if family in ("resnet", "timm-convnext") else 16

    for size in ((128, 64), (448, 448), (256, 128)):
        backbone = create_backbone(f"local-dir:{tmp_path}", image_size=size)
        features = backbone.encode_image(_images(size, count=1))

        assert (backbone.image_size, backbone.grid) == (size, (size[0] // stride, size[1] // stride))
        assert features.regions.shape == (1, backbone.grid[0] * backbone.grid[1], backbone.width)
        assert features.pooled.isfinite().all()


@torch.no_grad()
def test_a_resized_vit_equals_open_clips_own_resizing(tmp_path: Path) -> None:
    write_model("vit", tmp_path)
    reference = open_clip.create_model(f"local-dir:{tmp_path}", force_image_size=(128, 96)).eval()

    backbone = create_backbone(f"local-dir:{tmp_path}", image_size=(128, 96))

    images = _images((128, 96))
    torch.testing.assert_close(
        backbone.encode_image(images).pooled, reference.encode_image(images), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("family", ["vit", "resnet", "timm-vit-class-token"])
def test_a_size_that_no_patch_divides_is_refused(family: str, tmp_path: Path) -> None:
    write_model(family, tmp_path)

    with pytest.raises(UserError, match=r"image size 100x128: .*multiples of (16|32), such as 9?6?1?1?2?x128"):
        create_backbone(f"local-dir:{tmp_path}", image_size=(100, 128))


@pytest.mark.parametrize(
    ("spec", "weights", "message"),
    [
        ("ViT-B-16", None, "backbone.name=ViT-B-16: unknown; take embedded, open_clip:NAME"),
        ("open_clip:ViT-B-61", "random", "did you mean .*ViT-B-16"),
        ("open_clip:ViT-B-16", None, "needs weights: a tag"),
        ("open_clip:ViT-B-16", "openay", "neither a file nor a tag; tags are .*laion400m"),
        ("open_clip:ViT-B-16", "openai", "trained with QuickGELU; name open_clip:ViT-B-16-quickgelu"),
        ("embedded", "openai", "the embedded backbone brings its own"),
        ("local-dir:nowhere", None, "there is no such folder"),
    ],
)
def test_wrong_specifications_say_what_to_do(spec: str, weights: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        create_backbone(spec, weights=weights)
    assert "\n" not in str(caught.value)


def test_the_fingerprint_changes_with_what_matters(tmp_path: Path) -> None:
    write_model("vit", tmp_path)
    spec = f"local-dir:{tmp_path}"

    first = create_backbone(spec).fingerprint

    assert create_backbone(spec).fingerprint == first
    assert create_backbone(spec, image_size=128).fingerprint != first
    assert create_backbone(spec, regions="value").fingerprint != first
    assert create_backbone(spec, weights="random").fingerprint != first


@torch.no_grad()
def test_an_image_alone_and_in_a_batch_give_the_same(pair: tuple[str, nn.Module, Backbone]) -> None:
    backbone = _exact(pair[2])
    images = _images(backbone.image_size, count=3).double()

    together, alone = backbone.encode_image(images).regions[1:2], backbone.encode_image(images[1:2]).regions

    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "RN50", "ViT-B-32-quickgelu"])
@torch.no_grad()
def test_published_architectures_equal_open_clips_at_full_size(name: str) -> None:
    torch.manual_seed(0)
    # Frozen as the adapter's text tower is: torch takes another attention kernel where a weight wants gradients,
    # and the two differ by 4e-6 in features of length 22.
    reference = open_clip.create_model(name).eval().requires_grad_(False)
    torch.manual_seed(0)
    backbone = create_backbone(f"open_clip:{name}", weights="random").requires_grad_(False)
    images, ids = _images(backbone.image_size, count=1), open_clip.tokenize(TEXTS)

    image, text = reference.encode_image(images), reference.encode_text(ids)

    torch.testing.assert_close(backbone.encode_image(images).pooled, image, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(backbone.text_tower(backbone.embed_tokens(ids), ids), text, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(backbone.encode_text(TEXTS), text, atol=5e-6, rtol=1e-6)


def test_a_model_whose_weights_are_in_a_file_is_not_called_random(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_model("vit", tmp_path / "model")
    caplog.clear()
    create_backbone(f"local-dir:{tmp_path / 'model'}")
    assert "initialized randomly" not in caplog.text
    logging.warning("Model initialized randomly.")  # nothing is held back afterwards
    assert "initialized randomly" in caplog.text
