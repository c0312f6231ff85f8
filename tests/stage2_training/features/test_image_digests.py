"""Digests of images, loose and in shards."""

import hashlib
from pathlib import Path

import pytest

from sspa.stage2_training.features.image_digests import image_digests


def test_an_image_in_a_shard_is_known_by_its_shard_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    shard, loose = tmp_path / "train-000000.tar", tmp_path / "z.jpg"
    shard.write_bytes(b"as if it were a shard")
    loose.write_bytes(b"as if it were an image")
    of_shard, of_loose = (hashlib.sha256(file.read_bytes()).hexdigest() for file in (shard, loose))

    assert image_digests([shard / "x.jpg", loose, shard / "y.jpg"]) == [
        f"{of_shard} x.jpg",
        of_loose,
        f"{of_shard} y.jpg",
    ]
