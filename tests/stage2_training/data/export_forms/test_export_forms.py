"""What is written in other programs' forms is read back as the same data, and predictions keep their figures."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.cli.main import app
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.custom.reading import read_custom
from sspa.stage2_training.data.custom.tables import TableColumns
from sspa.stage2_training.data.export_forms.lists import write_csv
from sspa.stage2_training.data.export_forms.marked_images import manifest_images
from sspa.stage2_training.data.manifest import Manifest, write_manifest
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.prediction.parquet import SIDES, prediction_schema

LABELS = LabelSet("mine", tuple(Label(key, key) for key in ("a cat", "dog, wet", 'say "x"')))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    names = ("a.png", "b, c.png", "d/ä.png", "e.png")
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (10 + number, 20)).save(tmp_path / name)
    targets = np.array([[1, 0, -1], [0, 1, 1], [0, 0, 0], [1, 1, 0]], dtype=np.int8)
    splits, ids, groups = ("train", "train", "train", "val"), ("1", "2", "3", "4"), ("p", "p", "q", "r")
    return Manifest(
        "custom", LABELS, get_protocol("custom"), "", Texts(ids), Texts(names), Texts(splits), targets, Texts(groups)
    )


def export(*arguments: object) -> None:
    app(["data", "export", *map(str, arguments)], standalone_mode=False)


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_a_list_is_read_back_as_the_same_manifest(tmp_path: Path, manifest: Manifest, name: str) -> None:
    write_manifest(manifest, tmp_path / "m.parquet")
    export(tmp_path / "m.parquet", tmp_path / name)
    again = read_custom("custom", tmp_path, tmp_path / name, columns=TableColumns(group="group"))
    assert again.content_hash == manifest.content_hash
    with pytest.raises(UserError, match="exists already; nothing was changed"):
        export(tmp_path / "m.parquet", tmp_path / name)


def test_coco_and_label_studio_are_read_back_but_for_what_they_cannot_say(
    tmp_path: Path, manifest: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(manifest, tmp_path / "m.parquet")
    with pytest.raises(UserError, match="opens the images: say where they are with --root"):
        export(tmp_path / "m.parquet", tmp_path / "out.json", "--to", "coco")
    export(tmp_path / "m.parquet", tmp_path / "out.json", "--to", "coco", "--root", tmp_path)
    export(tmp_path / "m.parquet", tmp_path / "tasks.json", "--to", "label-studio")
    said = capsys.readouterr().err
    assert "1 unknown labels look absent in COCO" in said
    assert "1 unknown labels look absent in Label Studio" in said
    assert "<Choice value='say \"x\"'/>" in said
    wanted = np.where(manifest.targets == 1, 1, 0)
    for name in ("out.json", "tasks.json"):
        again = read_custom("custom", tmp_path, tmp_path / name, LABELS, val=0.25, test=0.25)
        assert again.paths == manifest.paths
        assert (again.targets == wanted).all()
    first = json.loads((tmp_path / "out.json").read_text())["images"][1]
    assert (first["width"], first["height"]) == (11, 20)


def test_the_size_of_an_image_is_that_of_how_it_is_shown(tmp_path: Path, manifest: Manifest) -> None:
    write_manifest(manifest.only(np.array([0])), tmp_path / "m.parquet")
    turned = Image.new("RGB", (30, 20))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "a.png", exif=turned.getexif())
    export(tmp_path / "m.parquet", tmp_path / "out.json", "--to", "coco", "--root", tmp_path)
    (image,) = json.loads((tmp_path / "out.json").read_text())["images"]
    assert (image["width"], image["height"]) == (20, 30)


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    rows = []
    for number, path in enumerate(("a.png", "b.png")):
        Image.new("RGB", (40, 20)).save(tmp_path / path)
        for place, label in enumerate(LABELS.keys):
            probability = 0.1 + 0.3 * place + 0.05 * number
            box = dict(zip(SIDES, (1, 2, 11, 12), strict=True))
            rows.append({"path": path, "label": label, "probability": probability, "above_threshold": place > 0, **box})
    pq.write_table(
        pa.Table.from_pylist(rows, schema=prediction_schema()), tmp_path / "p.parquet", write_page_checksum=True
    )
    return tmp_path / "p.parquet"


def test_predictions_of_an_earlier_version_are_read(tmp_path: Path, predictions: Path) -> None:
    former = ["path", "label", "probability", "above_threshold", "left", "top", "right", "bottom"]
    earlier = pq.read_table(predictions).rename_columns(former)
    pq.write_table(earlier, tmp_path / "earlier.parquet", write_page_checksum=True)
    for name in ("p", "earlier"):
        export(tmp_path / f"{name}.parquet", tmp_path / f"{name}.jsonl")
    assert (tmp_path / "earlier.jsonl").read_text() == (tmp_path / "p.jsonl").read_text()


def test_predictions_keep_probabilities_and_boxes(tmp_path: Path, predictions: Path) -> None:
    export(predictions, tmp_path / "p.csv")
    with (tmp_path / "p.csv").open() as file:
        first, _ = csv.DictReader(file)
    assert (first["path"], first["labels"], first["dog, wet"]) == ("a.png", 'dog, wet;say "x"', "0.4000")
    export(predictions, tmp_path / "p.jsonl")
    line = json.loads((tmp_path / "p.jsonl").read_text().splitlines()[1])
    assert line["probabilities"]["a cat"] == pytest.approx(0.15)
    assert line["boxes"]["dog, wet"] == [1, 2, 11, 12]
    export(predictions, tmp_path / "p.json", "--to", "coco", "--root", tmp_path)
    annotation = json.loads((tmp_path / "p.json").read_text())["annotations"][0]
    assert annotation["bbox"] == [1, 2, 10, 10]
    assert annotation["score"] == pytest.approx(0.4)
    export(predictions, tmp_path / "tasks.json", "--to", "label-studio")
    task = json.loads((tmp_path / "tasks.json").read_text())[0]
    assert task["predictions"][0]["result"][0]["value"]["choices"] == ["dog, wet", 'say "x"']
    assert task["predictions"][0]["score"] == pytest.approx(0.55)
    assert "annotations" not in task


def test_what_cannot_be_written_is_one_line(tmp_path: Path, manifest: Manifest, predictions: Path) -> None:
    with pytest.raises(UserError, match="its ending does not say the form"):
        export(predictions, tmp_path / "p.json")
    with pytest.raises(UserError, match=r"none\.parquet: there is no such file"):
        export(tmp_path / "none.parquet", tmp_path / "p.csv")
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        export(tmp_path / "x.parquet", tmp_path / "p.csv")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "y.parquet", write_page_checksum=True)
    with pytest.raises(UserError, match="neither a manifest nor a file of predictions"):
        export(tmp_path / "y.parquet", tmp_path / "p.csv")
    mixed = LabelSet("mine", (Label("a;b", "a b"), *LABELS.labels[1:]))
    with pytest.raises(UserError, match="holds the ; that separates labels"):
        write_csv(manifest_images(Manifest(**{**vars(manifest), "labels": mixed})), tmp_path / "p.csv")


def test_fiftyone_gets_labels_confidences_and_splits(
    tmp_path: Path, manifest: Manifest, predictions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in: FiftyOne needs a database server."""
    stored: dict[str, list[dict]] = {}

    class Sample(dict):
        def __init__(self, filepath: str, tags: list[str]) -> None:
            super().__init__(filepath=filepath, tags=tags)

    class Dataset:
        def __init__(self, name: str, persistent: bool) -> None:
            assert persistent
            self.samples = stored.setdefault(name, [])

        def add_samples(self, samples: list[dict]) -> None:
            self.samples += samples

    module = SimpleNamespace(
        Sample=Sample, Dataset=Dataset, dataset_exists=stored.__contains__,
        Classification=lambda label, confidence: (label, confidence),
        Classifications=lambda classifications: classifications,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    write_manifest(manifest, tmp_path / "m.parquet")
    export(tmp_path / "m.parquet", "mine", "--to", "fiftyone", "--root", tmp_path)
    first = stored["mine"][0]
    assert first == {
        "filepath": str(tmp_path / "a.png"), "tags": ["train"], "ground_truth": [("a cat", None)],
        "unknown": ['say "x"'],
    }  # fmt: skip
    export(predictions, "theirs", "--to", "fiftyone", "--root", tmp_path)
    assert stored["theirs"][0]["predictions"][0] == ("dog, wet", pytest.approx(0.4))
    with pytest.raises(UserError, match="has a data set of that name already"):
        export(predictions, "theirs", "--to", "fiftyone", "--root", tmp_path)
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(UserError, match="pip install fiftyone"):
        export(predictions, "others", "--to", "fiftyone", "--root", tmp_path)
