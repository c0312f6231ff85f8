"""Cached features, and batches of them."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.data import loading
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.data.loading import ImageDataset
from sspa.stage2_training.data.transforms import make_transform
from sspa.stage2_training.features.batches import FeatureBatches, read_ahead
from sspa.stage2_training.features.kept_features import FeatureCache, KeptFeatures

from ..model.small_models import small_backbone

CPU = torch.device("cpu")


def _views(count: int) -> list[KeptFeatures]:
    """Two views whose values identify image and view: image + 1000 * view."""
    return [
        KeptFeatures(
            (np.broadcast_to(np.arange(count, dtype=np.float16)[:, None] + 1000 * view, (count, 2)).copy(),),
            (np.broadcast_to(np.arange(count, dtype=np.float16)[:, None, None] + 1000 * view, (count, 3, 2)).copy(),),
        )
        for view in range(2)
    ]


def _images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Images of independent noise."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(seed)
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


def test_a_batch_holds_the_drawn_view_of_its_images_and_their_targets() -> None:
    targets = np.arange(50, dtype=np.int8)[:, None]
    batches = FeatureBatches(_views(50), targets, 8, CPU, shuffle=True, seed=3)
    seen, mirrored = [], 0
    for features, wanted, indices in batches.epoch(1):
        assert torch.equal(features.pooled % 1000, indices[:, None].float().expand(-1, 2))
        assert torch.equal(features.regions[:, :, 0] % 1000, indices[:, None].float().expand(-1, 3))
        assert torch.equal(features.pooled[:, 0] >= 1000, features.regions[:, 0, 0] >= 1000)
        assert torch.equal(wanted[:, 0].long(), indices)
        mirrored += int((features.pooled[:, 0] >= 1000).sum())
        seen += indices.tolist()
    assert len(seen) == len(set(seen)) == 48  # whole batches only
    assert 10 < mirrored < 38


def test_batches_are_read_ahead_in_order_and_no_further_once_nobody_asks() -> None:
    read: list[int] = []

    def square(number: int) -> int:
        read.append(number)
        if number == 7:
            raise OSError("the disk is gone")
        return number * number

    assert list(read_ahead(square, range(5))) == [0, 1, 4, 9, 16]
    ahead = read_ahead(square, range(5, 100))
    assert next(ahead) == 25
    ahead.close()
    assert max(read) <= 7
    ahead = read_ahead(square, range(6, 9))
    assert next(ahead) == 36
    with pytest.raises(OSError, match="the disk is gone"):
        list(ahead)


def test_epochs_differ_and_repeat() -> None:
    batches = FeatureBatches(_views(50), np.zeros((50, 1), dtype=np.int8), 8, CPU, shuffle=True, seed=3)

    def of(epoch: int) -> list[float]:
        return [value for features, _, _ in batches.epoch(epoch) for value in features.pooled[:, 0].tolist()]

    assert of(1) == of(1)
    assert of(1) != of(2)


def test_scoring_keeps_the_order_and_the_last_images() -> None:
    batches = FeatureBatches(_views(50)[:1], np.zeros((50, 1), dtype=np.int8), 8, CPU)
    order = [index for _, _, indices in batches.epoch(0) for index in indices.tolist()]
    assert order == list(range(50))
    assert len(batches) == 7


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A small backbone, with its own cache."""
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    return small_backbone(tmp_path / "backbone")


def test_features_are_the_towers_and_are_computed_once(
    tmp_path: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = _images(tmp_path, 5)
    split = Split("test", tuple("abcde"), tuple(paths), np.zeros((5, 2), dtype=np.int8))

    (kept,) = FeatureCache(backbone, CPU, workers=0).kept([split], "mirrored")
    transform = make_transform(backbone.image_size, train=False)
    images = torch.stack([ImageDataset(split, transform)[index][0] for index in range(5)])
    with torch.no_grad():
        wanted = backbone.encode_image(images.flip(-1))
    taken = kept.take(np.array([3, 1]))
    assert taken.regions.dtype == torch.float16
    torch.testing.assert_close(taken.regions.float(), wanted.regions[[3, 1]], atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(taken.pooled.float(), wanted.pooled[[3, 1]], atol=2e-3, rtol=2e-3)

    assert "MB" in capsys.readouterr().err
    FeatureCache(backbone, CPU, workers=0).kept([split], "mirrored")
    assert capsys.readouterr().err == ""
    few = Split("train", ("d", "b"), (paths[3], paths[1]), split.targets[[3, 1]], within=(split,))
    (drawn,) = FeatureCache(backbone, CPU, workers=0).kept([few], "mirrored")
    assert capsys.readouterr().err == ""  # those of the whole split serve
    assert len(drawn) == 2
    assert torch.equal(drawn.take(np.array([0, 1])).regions, taken.regions)
    (alone,) = FeatureCache(backbone, CPU, workers=0).kept([few], "plain")
    assert "MB" in capsys.readouterr().err
    assert len(alone) == len(alone.pooled[0]) == 2
    Image.fromarray(np.zeros((40, 50, 3), dtype=np.uint8)).save(paths[0])  # a changed image is noticed
    FeatureCache(backbone, CPU, workers=0).kept([split], "mirrored")
    assert "MB" in capsys.readouterr().err


def test_an_image_is_decoded_once_for_all_views(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = (
        Split(name, ("a", "b"), tuple(_images(tmp_path / name, 2, seed)), np.zeros((2, 2), dtype=np.int8))
        for seed, name in enumerate(("train", "test"))
    )
    decoded: list[Path] = []
    load = loading.load_image
    monkeypatch.setattr(loading, "load_image", lambda path, **options: decoded.append(path) or load(path, **options))

    FeatureCache(backbone, CPU, workers=0).keep(([train], ["plain", "mirrored"]), ([test], ["plain"]))

    assert sorted(decoded) == sorted(train.paths + test.paths)
    assert "image tower: 4/4 images" in capsys.readouterr().err
    transform = make_transform(backbone.image_size, train=False)
    images = torch.stack([ImageDataset(train, transform)[index][0] for index in range(2)])
    for view, shown in (("plain", images), ("mirrored", images.flip(-1))):
        (kept,) = FeatureCache(backbone, CPU, workers=0).kept([train], view)
        with torch.no_grad():
            wanted = backbone.encode_image(shown).regions
        torch.testing.assert_close(kept.take(np.arange(2)).regions.float(), wanted, atol=2e-3, rtol=2e-3)
    assert capsys.readouterr().err == ""


def test_heads_without_regions_keep_the_pooled_feature_alone(
    tmp_path: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    split = Split("test", tuple("abc"), tuple(_images(tmp_path / "images", 3)), np.zeros((3, 2), dtype=np.int8))
    everything = np.arange(3)

    def kept(regions: bool) -> ImageFeatures:
        return FeatureCache(backbone, CPU, 0, regions).kept([split], "plain")[0].take(everything)

    alone = kept(regions=False)
    assert alone.regions.shape == (3, 0, backbone.width)
    (entry,) = (tmp_path / "cache" / "features").iterdir()
    assert not (entry / "regions.npy").exists()
    both = kept(regions=True)
    assert torch.equal(both.pooled, alone.pooled)
    assert both.regions.shape[1] > 0

    shutil.rmtree(entry)
    capsys.readouterr()
    assert torch.equal(kept(regions=False).pooled, alone.pooled)  # those with regions serve
    assert capsys.readouterr().err == ""
    (entry,) = (tmp_path / "cache" / "features").iterdir()
    (entry / "pooled.npy").write_bytes(b"damaged")
    assert torch.equal(kept(regions=False).pooled, alone.pooled)
    assert kept(regions=True).regions.shape == both.regions.shape


def test_features_outlive_a_move_of_the_images(
    tmp_path: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = _images(tmp_path / "before", 3)
    paths[1].write_bytes(b"broken")
    split = Split("test", tuple("abc"), tuple(paths), np.zeros((3, 2), dtype=np.int8))
    (kept,) = FeatureCache(backbone, CPU, workers=0).kept([split], "plain")
    capsys.readouterr()

    (tmp_path / "before").rename(tmp_path / "after")
    for path in (tmp_path / "after").iterdir():
        os.utime(path, ns=(1, 1))
    moved = replace(split, paths=tuple(tmp_path / "after" / path.name for path in paths))
    (again,) = FeatureCache(backbone, CPU, workers=0).kept([moved], "plain")

    assert not capsys.readouterr().err
    everything = np.arange(3)
    assert torch.equal(again.take(everything).regions, kept.take(everything).regions)
    assert again.unreadable == {1: kept.unreadable[1].replace("before", "after")}


def _cut(entry: Path) -> None:
    (entry / "regions.npy").write_bytes((entry / "regions.npy").read_bytes()[:-2])


def _lose(entry: Path) -> None:
    (entry / "pooled.npy").unlink()


def _of_other_shape(entry: Path) -> None:
    np.save(entry / "pooled.npy", np.zeros((4, 3), dtype=np.float16))


def _of_other_type(entry: Path) -> None:
    np.save(entry / "pooled.npy", np.load(entry / "pooled.npy").astype(np.float32))


def _with_a_header_that_is_no_literal(entry: Path) -> None:
    content = (entry / "pooled.npy").read_bytes()
    (entry / "pooled.npy").write_bytes(content.replace(b"'fortran_order': False", b"'fortran_order': F(\x16]e"))


@pytest.mark.parametrize("damage", [_cut, _lose, _of_other_shape, _of_other_type, _with_a_header_that_is_no_literal])
def test_a_damaged_entry_is_computed_again(
    tmp_path: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    split = Split("test", tuple("abcd"), tuple(_images(tmp_path, 4)), np.zeros((4, 2), dtype=np.int8))
    (first,) = FeatureCache(backbone, CPU, workers=0).kept([split], "plain")
    wanted = first.take(np.arange(4))
    (entry,) = (tmp_path / "cache" / "features").iterdir()
    damage(entry)
    (again,) = FeatureCache(backbone, CPU, workers=0).kept([split], "plain")
    assert f"{entry}: damaged features in the cache" in capsys.readouterr().err
    assert torch.equal(again.take(np.arange(4)).regions, wanted.regions)
    assert torch.equal(again.take(np.arange(4)).pooled, wanted.pooled)


def test_folds_share_what_is_kept_of_the_whole(
    tmp_path: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = _images(tmp_path, 6)

    def split(name: str, numbers: list[int], within: tuple[Split, ...] = ()) -> Split:
        targets = np.zeros((len(numbers), 2), dtype=np.int8)
        return Split(name, tuple(map(str, numbers)), tuple(paths[number] for number in numbers), targets, within)

    own = (split("train", [0, 1, 2, 3]), split("val", [4, 5]))
    folds = [split("train", [0, 2], own), split("val", [5], own), split("test", [1, 3, 4], own)]
    parts = FeatureCache(backbone, CPU, workers=0).kept(folds, "plain")
    assert "features of train, val (plain)" in capsys.readouterr().err  # the data set's own, whole
    wholes = FeatureCache(backbone, CPU, workers=0).kept(own, "plain")
    assert capsys.readouterr().err == ""  # a run without folds has them already
    by_number = torch.cat([whole.take(np.arange(len(whole))).regions for whole in wholes])
    for part, fold in zip(parts, folds, strict=True):
        assert len(part) == len(fold)
        order = np.arange(len(fold))[::-1]
        assert torch.equal(part.take(order).regions, by_number[[int(fold.ids[index]) for index in order]])


def test_an_unreadable_image_costs_no_other_features_and_is_left_out_of_training(
    tmp_path: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = _images(tmp_path, 6)
    paths[4].write_bytes(b"broken")
    split = Split("train", tuple("abcdef"), tuple(paths), np.zeros((6, 2), dtype=np.int8))
    (kept,) = FeatureCache(backbone, CPU, workers=0).kept([split], "plain")
    assert list(kept.unreadable) == [4]
    assert "4.png: not an image" in kept.unreadable[4]
    batches = FeatureBatches([kept], split.targets, 2, CPU, shuffle=True)
    for epoch in range(3):
        assert sorted(index for _, _, indices in batches.epoch(epoch) for index in indices.tolist()) in (
            [0, 1, 2, 3], [0, 1, 2, 5], [0, 1, 3, 5], [0, 2, 3, 5], [1, 2, 3, 5],
        )  # fmt: skip
    assert batches.unreadable() == [f"{kept.unreadable[4]} (left out)"]
    capsys.readouterr()
    few = Split("train", ("e", "b"), (paths[4], paths[1]), split.targets[:2], within=(split,))
    (drawn,) = FeatureCache(backbone, CPU, workers=0).kept([few], "plain")
    assert list(drawn.unreadable) == [0]
    (entry,) = (tmp_path / "cache" / "features").iterdir()
    (entry / "unreadable.json").write_text("[")
    FeatureCache(backbone, CPU, workers=0).kept([split], "plain")
    assert "damaged features in the cache" in capsys.readouterr().err
    Image.new("RGB", (40, 50)).save(paths[4])  # replaced
    assert not FeatureCache(backbone, CPU, workers=0).kept([split], "plain")[0].unreadable


def test_a_large_split_is_kept_in_parts(
    tmp_path: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = _images(tmp_path, 7)
    paths[5].write_bytes(b"broken")
    split = Split("train", tuple("abcdefg"), tuple(paths), np.zeros((7, 2), dtype=np.int8))
    (whole,) = FeatureCache(backbone, CPU, workers=0).kept([split], "plain")
    monkeypatch.setattr("sspa.stage2_training.features.kept_features._PART", 3)
    capsys.readouterr()
    first_two = Split("train", split.ids[:3], split.paths[:3], split.targets[:3])
    FeatureCache(backbone, CPU, workers=0).kept([first_two], "plain")
    capsys.readouterr()
    (parts,) = FeatureCache(backbone, CPU, workers=0).kept([split], "plain")
    assert len(parts) == 7
    assert len(parts.pooled) == 3
    rows = np.array([6, 0, 3, 5])
    torch.testing.assert_close(parts.take(rows).regions, whole.take(rows).regions)
    assert list(parts.unreadable) == [5]
    few = Split("train", ("f", "a"), (paths[5], paths[0]), split.targets[:2], within=(split,))
    (drawn,) = FeatureCache(backbone, CPU, workers=0).kept([few], "plain")
    torch.testing.assert_close(drawn.take(np.array([1, 0])).regions, whole.take(np.array([0, 5])).regions)
    assert list(drawn.unreadable) == [0]
