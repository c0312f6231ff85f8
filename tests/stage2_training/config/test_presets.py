"""Presets: each is a valid configuration, and is overridden by what a user sets."""

from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.config.presets import preset_names
from sspa.stage2_training.config.resolving import differing_keys, resolve_config
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.data.adapters import adapter_names
from sspa.stage2_training.model.options import SspaOptions

CLIP = {"knowledge": "k.parquet", "backbone.name": "open_clip:ViT-B-16"}


@pytest.mark.parametrize("name", [name for name in preset_names() if not name.startswith("embedded-")])
def test_every_preset_is_a_valid_configuration(name: str) -> None:
    assert name in adapter_names()
    config = resolve_config(values={**CLIP, "data.name": name})
    assert config.preset == name
    assert config == resolve_config(values={**CLIP, "data.name": name}, preset=name)
    if name != "scenes":
        assert config.backbone.tower == "all"


def test_what_a_user_sets_wins_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("training: {epochs: 3}\n")
    config = resolve_config([file], ["training.lr=0.5"], {**CLIP, "data.name": "coco2014"}, base={"data.cutout": 0.1})
    assert (config.training.epochs, config.training.lr, config.data.cutout) == (3, 0.5, 0.1)
    assert config.backbone.image_size == (448, 448)


def test_scenes_are_a_first_look_on_any_backbone() -> None:
    config = resolve_config(values={"knowledge": "k.parquet", "data.name": "scenes"})
    assert config == resolve_config(values={"knowledge": "k.parquet"})
    assert config.preset == resolve_config(values={**CLIP, "data.name": "scenes"}).preset == "scenes"
    defaults = RunConfig(knowledge=Path("k.parquet"))
    assert config.training.epochs < defaults.training.epochs
    assert config.backbone == defaults.backbone


@pytest.mark.parametrize(
    ("data", "recipe", "size"),
    [
        ("voc2007", "embedded-photos", (384, 384)),
        ("coco2014", "embedded-photos", (384, 384)),
        ("artifacts/mine.parquet", "embedded-photos", (384, 384)),
        ("ucm", "embedded-aerial", (256, 256)),
        ("multiscene-clean", "embedded-aerial", (256, 256)),
        ("peta", "embedded-pedestrian", (256, 128)),
    ],
)
def test_the_embedded_backbone_has_a_recipe_for_each_domain(data: str, recipe: str, size: tuple[int, int]) -> None:
    config = resolve_config(values={"knowledge": "k.parquet", "data.name": data})
    assert (config.preset, config.backbone.image_size, config.backbone.tower) == (recipe, size, "frozen")


def test_the_fast_recipe_for_photos_is_that_for_photos_without_boxes() -> None:
    known = {"knowledge": "k.parquet", "data.name": "voc2007"}
    fast, usual = resolve_config(values=known, preset="embedded-photos-fast"), resolve_config(values=known)
    differing = ["model.cap.learned", "model.dsf.enabled", "model.gdma.s_to_v", "model.gdma.v_to_s", "model.qsm.kind"]
    assert sorted({*differing_keys(fast, usual)} - {"preset"}) == differing
    assert isinstance(fast.model, SspaOptions)
    assert not (fast.model.cap.learned)
    assert not (fast.model.dsf.enabled)
    assert not (fast.model.gdma.v_to_s)
    assert not (fast.model.gdma.s_to_v)


def test_the_large_recipe_for_photos_is_that_for_photos_with_larger_ones() -> None:
    known = {"knowledge": "k.parquet", "data.name": "voc2007"}
    large, usual = resolve_config(values=known, preset="embedded-photos-large"), resolve_config(values=known)
    assert {*differing_keys(large, usual)} - {"preset"} == {"backbone.image_size"}


def test_a_preset_by_name_or_none() -> None:
    named = resolve_config(values={"knowledge": "k.parquet"}, preset="peta")
    assert (named.preset, named.data.name, named.backbone.image_size) == ("peta", "scenes", (256, 128))
    assert resolve_config(values={**CLIP, "data.name": "peta"}, preset="none").preset is None
    with pytest.raises(UserError, match="did you mean peta"):
        resolve_config(values=CLIP, preset="pets")
