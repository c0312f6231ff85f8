"""Copies and near-copies are found, and different images are not taken for them."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.checking import decoding_problems, duplicate_problems
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.duplicates import Duplicate, Fingerprints, duplicates, fingerprints
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.protocols import get_protocol


def drawing(seed: int) -> Image.Image:
    """Shapes of random places and colours: different pictures with structure."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (320, 240), tuple(generator.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, width, height = (generator.random(4) * (320, 240, 150, 120)).astype(int).tolist()
        draw.ellipse((x, y, x + width, y + height), fill=tuple(generator.integers(0, 256, 3).tolist()))
    return image


def test_rescaled_recompressed_and_brightened_copies_are_found_and_nothing_else(tmp_path: Path) -> None:
    paths = []
    for seed in range(12):
        drawing(seed).save(path := tmp_path / f"{seed}.png")
        paths.append(path)
    first = drawing(0)
    copies = {
        "small": first.resize((160, 120)),
        "grey": first.convert("L"),
        "bright": ImageEnhance.Brightness(first).enhance(1.15),
        "poor": first,
    }
    for name, copy in copies.items():
        copy.save(path := tmp_path / f"{name}.jpg", quality=25 if name == "poor" else 85)
        paths.append(path)
    found = duplicates(fingerprints(paths))
    near = {pair.second for pair in found if pair.first == 0}
    assert near == {12, 13, 14, 15}
    assert all(pair.first == 0 or pair.first >= 12 for pair in found)
    assert all(pair.bits is not None for pair in found)


def test_pairs_equal_those_of_a_loop() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, (600, 4), dtype=np.uint64)
    for row in range(0, 600, 7):  # neighbours that differ in a few bits
        hashes[(row * 5) % 600] = hashes[row] ^ np.uint64(row % 8)
    content = tuple(str(row % 590) for row in range(600))
    prints = Fingerprints(content, hashes, {3: "broken"})
    wanted = []
    for one in range(600):
        for other in range(one + 1, 600):
            bits = sum(
                int(a ^ b).bit_count() for a, b in zip(hashes[one].tolist(), hashes[other].tolist(), strict=True)
            )
            if 3 in (one, other):
                continue
            if content[one] == content[other]:
                wanted.append(Duplicate(one, other, None))
            elif bits <= 32:
                wanted.append(Duplicate(one, other, bits))
    assert len(wanted) > 50
    assert duplicates(prints) == wanted


def test_pictures_of_one_colour_are_only_compared_by_their_bytes(tmp_path: Path) -> None:
    paths = []
    for number, colour in enumerate(("red", "green", "red")):
        Image.new("RGB", (50, 50), colour).save(path := tmp_path / f"{number}.png")
        paths.append(path)
    assert duplicates(fingerprints(paths)) == [Duplicate(0, 2, None)]


def make_manifest(root: Path, splits: list[str], targets: list[list[int]]) -> Manifest:
    names = Texts(f"{number}.png" for number in range(len(splits)))
    labels = LabelSet("mine", (Label("a", "a"),))
    return Manifest(
        "mine", labels, get_protocol("custom"), "", names, names, Texts(splits), np.array(targets, dtype=np.int8)
    )


def test_problems_are_what_makes_figures_a_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, seed in enumerate((1, 1, 2, 2, 3, 3, 4)):
        drawing(seed).save(tmp_path / f"{number}.png")
    drawing(2).resize((200, 150)).save(tmp_path / "3.png")
    manifest = make_manifest(
        tmp_path, ["train", "test", "train", "val", "train", "train", "train"], [[1], [1], [1], [1], [1], [0], [1]]
    )
    problems = duplicate_problems(manifest, tmp_path)
    assert problems[0] == "0.png (train) and 1.png (test) are the same"
    assert problems[1].startswith("2.png (train) and 3.png (val) are nearly the same (")
    assert problems[2] == "4.png (train) and 5.png (train) are the same, with other labels"
    assert len(problems) == 3
    assert "pairs within" not in capsys.readouterr().err


def test_everything_that_cannot_be_decoded_is_listed_at_once(tmp_path: Path) -> None:
    for number in range(7):
        drawing(number).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"broken")
    whole = io.BytesIO()
    drawing(4).save(whole, "PNG")
    (tmp_path / "4.png").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    manifest = make_manifest(tmp_path, ["train"] * 7, [[1]] * 7)
    first, second = decoding_problems(manifest, tmp_path)
    assert "2.png: not an image" in first
    assert "4.png: damaged image" in second
    drawing(2).save(tmp_path / "2.png")
    assert len(decoding_problems(manifest, tmp_path)) == 1  # a repaired file is read again


def test_without_its_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(UserError, match="install the extra `data`"):
        fingerprints([tmp_path / "a.png"])
