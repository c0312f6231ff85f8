import json
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.dataset import dataset_from_manifest
from sspa.stage2_training.data.loading import ImageDataset, ImageLoader
from sspa.stage2_training.data.manifest import Manifest, read_manifest
from sspa.stage2_training.data.sharding import write_shards
from sspa.stage2_training.data.shards import _members
from sspa.stage2_training.data.transforms import TransformOptions, make_transform
from sspa.stage2_training.evaluation.protocols import get_protocol


@pytest.fixture
def loose(tmp_path: Path) -> tuple[Manifest, Path]:
    """Seven images with unusual names in two splits."""
    root = tmp_path / "loose"
    rng = np.random.default_rng(0)
    ids = [f"dir/pic.{k}" for k in range(7)]
    for k, key in enumerate(ids):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9, 8, 3), dtype=np.uint8)).save(
            root / f"{key}.{'png' if k % 2 else 'jpg'}"
        )
    return (
        Manifest(
            dataset="custom",
            labels=LabelSet("two", (Label("cat", "cat"), Label("dog", "dog"))),
            protocol=get_protocol("custom"),
            note="",
            ids=Texts(ids),
            paths=Texts(f"{key}.{'png' if k % 2 else 'jpg'}" for k, key in enumerate(ids)),
            splits=Texts(("train",) * 5 + ("test",) * 2),
            targets=np.array([[1, 0], [0, 1], [1, -1], [0, 0], [1, 1], [0, 1], [1, 0]], np.int8),
        ),
        root,
    )


def test_shards_load_exactly_as_loose_files(loose: tuple[Manifest, Path], tmp_path: Path) -> None:
    manifest, root = loose
    assert write_shards(manifest, root, tmp_path / "shards", per_shard=2) == 4
    transform = make_transform((8, 8), True, TransformOptions(randaugment=1))
    batches = []
    for whole, folder in (
        (manifest, root),
        (read_manifest(tmp_path / "shards" / "manifest.parquet"), tmp_path / "shards"),
    ):
        train = dataset_from_manifest(whole, folder).splits["train"]
        for workers in (0, 2):
            loader = ImageLoader(ImageDataset(train, transform), 2, shuffle=True, workers=workers)
            batches.append([torch.cat(parts) for parts in zip(*loader.epoch(1), strict=True)])
    for other in batches[1:]:
        assert all(torch.equal(a, b) for a, b in zip(batches[0], other, strict=True))


def test_shards_are_webdataset_and_the_same_each_time(loose: tuple[Manifest, Path], tmp_path: Path) -> None:
    manifest, root = loose
    for name in ("a", "b"):
        write_shards(manifest, root, tmp_path / name, per_shard=3)
    shards = sorted(path.name for path in (tmp_path / "a").glob("*.tar"))
    assert shards == ["test-000000.tar", "train-000000.tar", "train-000001.tar"]
    for name in shards:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    samples = list(webdataset.WebDataset([str(tmp_path / "a" / "train-000000.tar")], shardshuffle=False))
    assert [json.loads(sample["json"]) for sample in samples] == [
        {"id": "dir/pic.0", "labels": {"cat": 1}},
        {"id": "dir/pic.1", "labels": {"dog": 1}},
        {"id": "dir/pic.2", "labels": {"cat": 1, "dog": -1}},
    ]
    assert samples[1]["png"] == (root / manifest.paths[1]).read_bytes()


def test_damaged_and_missing_shards_are_named(loose: tuple[Manifest, Path], tmp_path: Path) -> None:
    manifest, root = loose
    folder = tmp_path / "shards"
    write_shards(manifest, root, folder, per_shard=3)
    with pytest.raises(UserError, match="exists already"):
        write_shards(manifest, root, folder, per_shard=3)
    sharded = read_manifest(folder / "manifest.parquet")
    whole = (folder / "test-000000.tar").read_bytes()
    (folder / "test-000000.tar").unlink()
    with pytest.raises(UserError, match=r"2 of 7 images are missing, the first is .*test-000000\.tar/00000005\.png"):
        dataset_from_manifest(sharded, folder)
    (folder / "test-000000.tar").write_bytes(whole)
    test = dataset_from_manifest(sharded, folder).splits["test"]
    (folder / "test-000000.tar").write_bytes(whole[:700])
    transform = make_transform((8, 8), False)
    with pytest.raises(UserError, match=r"test-000000\.tar/00000005\.png: damaged"):
        ImageDataset(test, transform)[0]
    (folder / "train-000000.tar").write_bytes(b"\1" * 2000)
    _members.cache_clear()
    with pytest.raises(UserError, match=r"train-000000\.tar: damaged shard"):
        dataset_from_manifest(sharded, folder)
