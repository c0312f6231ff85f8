"""Cached text features: identical values, and a miss for anything that would change them."""

from pathlib import Path

import pytest
import torch

from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.backbones.text_cache import cached_text_features

from .architectures import write_model

TEXTS = ["a cat", "a dog"]


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    write_model("vit", tmp_path / "model")
    return create_backbone(f"local-dir:{tmp_path / 'model'}")


def _entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "texts").glob("*.safetensors"))


def test_a_second_call_reads_what_the_first_computed(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached_text_features(backbone, TEXTS, "hash")
    monkeypatch.setattr(Backbone, "encode_text", lambda *_: pytest.fail("the tower ran again"))

    assert torch.equal(cached_text_features(backbone, TEXTS, "hash"), first)
    assert len(_entries(tmp_path)) == 1


def test_other_texts_order_knowledge_or_tower_miss(backbone: Backbone, tmp_path: Path) -> None:
    first = cached_text_features(backbone, TEXTS, "hash")

    assert torch.equal(cached_text_features(backbone, TEXTS[::-1], "hash"), first.flip(0))
    cached_text_features(backbone, ["a cat", "a fox"], "hash")
    cached_text_features(backbone, TEXTS, "other")
    other = create_backbone(f"local-dir:{tmp_path / 'model'}", weights="random")
    assert not torch.allclose(cached_text_features(other, TEXTS, "hash"), first)
    assert len(_entries(tmp_path)) == 5


def test_a_damaged_entry_is_computed_again(backbone: Backbone, tmp_path: Path) -> None:
    first = cached_text_features(backbone, TEXTS, "hash")
    (entry,) = _entries(tmp_path)
    entry.write_bytes(entry.read_bytes()[:40])

    assert torch.equal(cached_text_features(backbone, TEXTS, "hash"), first)


def test_a_cache_that_cannot_be_written_is_said_and_done_without(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    first = cached_text_features(backbone, TEXTS, "hash")
    monkeypatch.setattr("os.fsync", full)
    assert torch.equal(cached_text_features(backbone, TEXTS, "hash"), first)
    capsys.readouterr()
    assert torch.equal(cached_text_features(backbone, TEXTS[::-1], "hash"), first.flip(0))
    said = capsys.readouterr().err
    assert "cannot be written (No space left on device); nothing was changed; going on without keeping" in said
    assert len(_entries(tmp_path)) == 1
