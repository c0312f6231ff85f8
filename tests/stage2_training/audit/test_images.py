from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image, ImageFilter

from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.audit.images import ImageFinding, find_in_images, write_findings
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.protocols import get_protocol


def picture(seed: int) -> Image.Image:
    """Noise at two scales: detail, and a structure of its own."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((96, 96))
    fine = Image.fromarray(generator.integers(0, 256, (96, 96, 3), dtype=np.uint8))
    return Image.blend(coarse, fine, 0.3)


@pytest.fixture
def data(tmp_path: Path) -> tuple[Manifest, list[Path]]:
    """Six images: 0 and 3 are copies in two splits, 1 and 2 nearly copies with other marks, 4 blurred, 5 no image."""
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number in (0, 1):
        picture(number).save(paths[number])
    picture(1).point(lambda value: min(255, value + 2)).save(paths[2])
    paths[3].write_bytes(paths[0].read_bytes())
    picture(4).filter(ImageFilter.GaussianBlur(8)).save(paths[4])
    paths[5].write_bytes(b"no image")
    targets = np.array([[1, 0], [1, -1], [0, 1], [1, 1], [0, 0], [0, 0]], dtype=np.int8)
    manifest = Manifest(
        dataset="mine",
        labels=LabelSet("mine", (Label("cat", "cat"), Label("dog", "dog"))),
        protocol=get_protocol("custom"),
        note="",
        ids=Texts([path.stem for path in paths]),
        paths=Texts([path.name for path in paths]),
        splits=Texts(["train", "train", "train", "test", "val", "test"]),
        targets=targets,
    )
    return manifest, paths


def test_each_kind_is_found_in_its_order(data: tuple[Manifest, list[Path]]) -> None:
    manifest, paths = data
    unreadable, across, nearly, blurred, unlabelled = find_in_images(manifest, paths)
    assert (unreadable.finding, unreadable.path, unreadable.split) == ("unreadable", str(paths[5]), "test")
    assert unreadable.reason is not None
    assert str(paths[5]) in unreadable.reason
    assert across == ImageFinding("copies", str(paths[0]), "train", str(paths[3]), "test", disagree=("dog",))
    assert across.across_splits
    # What is unknown on one of them is no contradiction.
    assert (nearly.path, nearly.other, nearly.disagree) == (str(paths[1]), str(paths[2]), ("cat",))
    assert nearly.bits is not None
    assert not nearly.across_splits
    assert (blurred.finding, blurred.path, blurred.split) == ("without detail", str(paths[4]), "val")
    # 5 has no label either, but is in test.
    assert unlabelled == ImageFinding("without label", str(paths[4]), "val")


def test_the_table_says_the_same(data: tuple[Manifest, list[Path]], tmp_path: Path) -> None:
    found = find_in_images(*data)
    table = tmp_path / "images.parquet"
    write_findings(found, table)
    rows = duckdb.sql(f"SELECT * FROM '{table}'").fetchall()
    assert len(rows) == len(found)
    for row, one in zip(rows, found, strict=True):
        assert row[:5] == (one.finding, one.path, one.split, one.other, one.other_split)
        assert tuple(row[5]) == one.disagree
        assert row[6] == one.bits
        assert row[7] == (None if one.sharpness is None else pytest.approx(one.sharpness))
        assert row[8] == one.reason


def test_nothing_found_is_an_empty_table(tmp_path: Path) -> None:
    table = tmp_path / "images.parquet"
    write_findings([], table)
    assert duckdb.sql(f"SELECT count(*) FROM '{table}' WHERE len(disagree) > 0").fetchall() == [(0,)]
