"""Tags without a run: `sspa-train tag`, and the same from Python."""

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch

from sspa import Tagger
from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.prediction import job

from .conftest import Ended
from .tiny_run import COLOURS

Command = Callable[..., Ended]


@pytest.fixture
def tag(sspa_train: Command, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))

    def command(*arguments: str | Path) -> Ended:
        return sspa_train("tag", *arguments, "--backbone", f"local-dir:{squares / 'backbone'}")

    return command


def lines_of(ended: Ended) -> list[dict[str, object]]:
    assert ended.code == 0, ended.messages
    return [json.loads(line) for line in ended.output.splitlines()]


def test_photos_are_tagged_with_any_labels(tag: Command, squares: Path) -> None:
    ended = tag(squares / "pictures", "--labels", "red square,green square,blue", "--json")
    lines = lines_of(ended)
    assert len(lines) == 144
    assert {key for line in lines for key in line["labels"]} == {"red square", "green square", "blue"}
    assert "trust the order of the labels more than their probabilities" in ended.messages


def test_an_image_is_tagged_alike_whatever_is_tagged_with_it(tag: Command, squares: Path) -> None:
    pictures = squares / "pictures"
    together = lines_of(tag(pictures, "--knowledge", squares / "knowledge.parquet", "--json"))
    (alone,) = lines_of(tag(pictures / "val3.png", "--knowledge", squares / "knowledge.parquet", "--json"))
    (same,) = [line for line in together if line["path"] == alone["path"]]
    assert len(alone["labels"]) == len(COLOURS)
    assert same["labels"] == pytest.approx(alone["labels"], abs=1e-6)


def test_the_model_is_the_towers_and_the_texts(squares: Path) -> None:
    """The global branch is CLIP's zero-shot classifier, computed here from the towers alone."""
    name = f"local-dir:{squares / 'backbone'}"
    tagger = Tagger.zero_shot(["red", "green"], backbone=name)
    backbone = create_backbone(name)
    image = tagger.prepare(squares / "pictures" / "test0.png")[None]
    texts = backbone.encode_text(["a photo of a red", "a photo of a green"])
    with torch.no_grad():
        cosine = torch.nn.functional.cosine_similarity(backbone.encode_image(image).pooled, texts)
    branches = tagger.explained(image, explain=False)[1].logits
    torch.testing.assert_close(branches["global"][0], 20 * cosine - 2, atol=1e-4, rtol=1e-4)
    before = torch.get_rng_state()
    Tagger.zero_shot(["red"], backbone=name)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("expected", [0.5, 1.0, 2.2])
def test_as_many_labels_as_expected_are_predicted(tag: Command, squares: Path, expected: float) -> None:
    labels = ("--labels", "red,green,blue", "--json")
    plain = lines_of(tag(squares / "pictures", *labels))
    moved = lines_of(tag(squares / "pictures", *labels, "--expect", str(expected)))
    assert np.mean([len(line["predicted"]) for line in moved]) == pytest.approx(expected, abs=0.01)
    for before, after in zip(plain, moved, strict=True):
        assert list(before["labels"]) == list(after["labels"])  # the order stays


def test_some_of_the_images_are_looked_at(tag: Command, squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_TYPICAL", 10)
    ended = tag(squares / "pictures", "--labels", "red,green", "--json", "--expect", "1")
    assert ended.code == 0, ended.messages
    assert "looking at typical images: 10/10 images" in ended.messages


def test_an_unreadable_image_is_skipped(tag: Command, squares: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "good.png").write_bytes((squares / "pictures" / "test0.png").read_bytes())
    ended = tag(folder, "--labels", "red,green", "--json", "--expect", "1")
    assert [Path(str(line["path"])).name for line in lines_of(ended)] == ["good.png"]
    assert "broken.png" in ended.messages


def test_a_file_is_written(tag: Command, squares: Path, tmp_path: Path) -> None:
    out = tmp_path / "tags.parquet"
    assert tag(squares / "pictures", "--labels", "red,green", "--out", out).code == 0
    assert duckdb.sql(f"SELECT count(DISTINCT path), count(*) FROM '{out}'").fetchall() == [(144, 288)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give your labels: either --labels or --knowledge"),
        (("--labels", "a,b", "--knowledge", "k.parquet"), "either --labels or --knowledge"),
        (("--labels", "missing.txt"), "there is no such file"),
        (("--labels", "red,green", "--expect", "2"), "--expect 2: give a number above 0 and below 2"),
        (("--labels", "red,green", "--expect", "0"), "--expect 0"),
        (("--labels", "red,green", "--out", "x.parquet", "--json"), "choose one of them"),
        (
            ("--labels", "red,green", "--out", "x.xlsx"),
            "--out x.xlsx: the ending says the form; take .parquet",
        ),
        (("--knowledge", "k.parquet", "--describe"), "--describe is for labels by name"),
    ],
)
def test_wrong_use_is_one_line(tag: Command, squares: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = tag(squares / "pictures" / "test0.png", *arguments)
    assert ended.code == 2
    assert message in ended.messages
    assert "Traceback" not in ended.messages


def test_what_needs_a_run_says_so(squares: Path) -> None:
    tagger = Tagger.zero_shot(["red"], backbone=f"local-dir:{squares / 'backbone'}")
    with pytest.raises(UserError, match="needs a trained run"):
        tagger.tuned_thresholds()
