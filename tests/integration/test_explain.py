"""`sspa-train explain`, and the faithfulness of maps on images whose squares are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sspa.stage2_training.explanation import faithfulness
from sspa.stage2_training.explanation.boxes import Box
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.runs.inputs import dataset_of

from .conftest import Ended
from .tiny_run import COLOURS, LABELS


def test_explain_writes_maps_and_a_page(
    sspa_train: Callable[..., Ended], trained_run: Path, squares: Path, tmp_path: Path
) -> None:
    image = squares / "pictures" / "test0.png"
    ended = sspa_train("explain", trained_run, image, "--out", tmp_path / "why", "--threshold", "tuned")
    assert ended.code == 0
    tags = Tagger.load(trained_run, device="cpu", threshold=None)(image)[0]
    shown = tags.predicted or tuple(tags.probabilities)[:1]
    names = {path.name for path in (tmp_path / "why").iterdir()}
    kinds = ("region-map", "dsf-attention", "label-from-regions", "regions-from-label")
    index = {label.key: number for number, label in enumerate(LABELS.labels)}
    expected = {f"{index[key]:03}-{key}-{kind}.png" for key in shown for kind in kinds}
    assert names == expected | {"index.html", "image-gate.png"}
    assert Image.open(tmp_path / "why" / next(iter(expected))).size == (96, 64)
    page = (tmp_path / "why" / "index.html").read_text(encoding="utf-8")
    assert "With the bare names in place of all descriptions" in page
    assert page.count("Counts as seen") == len(tags.predicted)
    assert page.count('alt="Region map"') == len(shown)
    assert "<b>red" not in page


def test_maps_point_at_the_squares_more_often_than_chance(
    trained_run: Path, squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [label.key for label in LABELS.labels]

    def square_boxes(path: Path) -> tuple[dict[str, list[Box]], tuple[int, int]]:
        """The boxes are where the image has exactly a label's colour."""
        pixels = np.asarray(Image.open(path))
        boxes = {}
        for key, colour in zip(keys, COLOURS.values(), strict=True):
            rows, columns = np.nonzero((pixels == colour).all(axis=-1))
            if len(rows):
                boxes[key] = [(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
        return boxes, (pixels.shape[1], pixels.shape[0])

    monkeypatch.setattr(faithfulness, "voc_boxes", square_boxes)
    tagger = Tagger.load(trained_run, device="cpu")
    dataset = dataset_of(tagger.folder)
    split = dataset.splits["test"]
    result = faithfulness.measure_faithfulness(tagger, dataset, "test", deletion_images=24)
    ours, chance = result.by_map["region map"], result.by_map["chance"]
    assert result.pointing_pairs == (split.targets == 1).sum()
    assert result.deletion_pairs == 24
    assert ours.pointing is not None
    assert chance.pointing is not None
    assert ours.pointing > chance.pointing + 0.2
    assert ours.deletion is not None
    assert chance.deletion is not None
    # Which of the two is less is not told: all probabilities of so small a model stay above 0.9 as regions go.
    assert 0 < ours.deletion < 1
    assert 0 < chance.deletion < 1
    assert result.by_map["max aggregator"].pointing is None


def test_data_without_boxes_is_said_to_have_none(sspa_train: Callable[..., Ended], trained_run: Path) -> None:
    ended = sspa_train("evaluate", trained_run, "--explanations")
    assert ended.code == 2
    assert "--explanations needs boxes" in ended.messages
