import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.custom.reading import read_custom
from sspa.stage2_training.data.manifest import Manifest


def images(root: Path, *paths: str) -> None:
    """Images of different bytes."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        colour = hashlib.sha256(path.encode()).digest()[:3]
        Image.new("RGB", (3, 3), tuple(colour)).save(root / path)


def table(manifest: Manifest) -> dict[str, tuple[str, dict[str, int]]]:
    return {
        key: (split, dict(zip(manifest.labels.keys, target.tolist(), strict=True)))
        for key, split, target in zip(manifest.ids, manifest.splits, manifest.targets, strict=True)
    }


def test_csv_with_splits_unknowns_and_ids(tmp_path: Path) -> None:
    source = tmp_path / "mine.csv"
    source.write_text('path,labels,split,id\na.jpg,cat; dog,train,one\n"b, c.jpg",?cat;dog,val,\nd.jpg,cat,test,\n')
    assert table(read_custom("mine", tmp_path, source)) == {
        "one": ("train", {"cat": 1, "dog": 1}),
        "b, c.jpg": ("val", {"cat": -1, "dog": 1}),
        "d.jpg": ("test", {"cat": 1, "dog": 0}),
    }


def test_json_lines_and_coco_say_the_same(tmp_path: Path) -> None:
    rows = [{"path": f"{k}.jpg", "labels": labels} for k, labels in enumerate((["cat"], ["cat", "dog"], [], ["dog"]))]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    coco = {
        "images": [{"id": k, "file_name": row["path"]} for k, row in enumerate(rows)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"image_id": k, "category_id": {"cat": 7, "dog": 9}[label]}
            for k, row in enumerate(rows)
            for label in row["labels"]
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(coco))
    lines, instances = (
        read_custom("mine", tmp_path, tmp_path / name, val=0.25, test=0.25) for name in ("a.jsonl", "a.json")
    )
    assert lines.targets.tolist() == instances.targets.tolist() == [[1, 0], [1, 1], [0, 0], [0, 1]]
    assert lines.paths == instances.paths


def test_a_folder_for_each_label_and_a_stratified_draw(tmp_path: Path) -> None:
    for label, count in {"rare": 20, "common": 80}.items():
        images(tmp_path, *(f"{label}/{k}.png" for k in range(count)))
    (tmp_path / "rare" / "notes.txt").write_text("no image")
    manifest = read_custom("mine", tmp_path)
    counts = Counter((split, int(target[1])) for split, target in zip(manifest.splits, manifest.targets, strict=True))
    assert manifest.labels.keys == ("common", "rare")
    assert counts[("test", 1)] == 4
    assert counts[("val", 1)] == 2
    assert counts[("test", 0)] == 16
    assert read_custom("mine", tmp_path).splits == manifest.splits
    assert read_custom("mine", tmp_path, seed=1).splits != manifest.splits


def test_a_label_set_gives_order_and_texts(tmp_path: Path) -> None:
    labels = LabelSet("pets", (Label("dog", "big dog"), Label("cat", "cat"), Label("cow", "cow")))
    (tmp_path / "a.csv").write_text("path,labels,split\na.jpg,cat,train\nb.jpg,dog,val\n")
    manifest = read_custom("mine", tmp_path, tmp_path / "a.csv", labels)
    assert manifest.labels == labels
    assert manifest.targets.tolist() == [[0, 1, 0], [1, 0, 0]]
    (tmp_path / "a.csv").write_text("path,labels,split\na.jpg,horse,train\n")
    with pytest.raises(UserError, match=r"a\.csv, line 2: label 'horse' is not in the label set"):
        read_custom("mine", tmp_path, tmp_path / "a.csv", labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,label\na.jpg,cat\n", "the column 'path' is missing; columns are path, labels"),
        ("path,kind\na.jpg,cat\n", "the column 'kind' holds other values than 1, 0 and -1; columns are"),
        ("path,file,label\na.jpg,b.jpg,cat\n", "'path' and 'file' could each be the column path"),
        ("path,labels\n,cat\n", "line 2: names no image"),
        ("path,labels\na.jpg,nan\n", "line 2: label 'nan' is what a spreadsheet writes for nothing"),
        ("path,labels\na.jpg,cat\nb.jpg,Cat\n", "label 'cat' is also written 'Cat'"),
        ('path,labels\na.jpg,cat\nb.jpg,dog\nc.jpg,"cat,dog"\n', "line 4: label 'cat,dog' is made of other labels"),
        ("path,labels\na.jpg,cat\nb.jpg,dog\nc.jpg,cat|dog\n", "line 4: label 'cat|dog' is made of other labels"),
        ("path,labels\na.jpg,\"['cat']\"\n", "is made of other labels; labels are separated by ;"),
        ("path,labels\na.jpg,cat;dog\n./a.jpg,dog\n", "line 3: a.jpg is also at .*line 2, with other labels"),
        (
            "path,labels,split\na.jpg,cat,train\nb/../a.jpg,cat,test\n",
            "line 3: a.jpg is also .*, with the split 'train'",
        ),
        ("path,labels,id\na.jpg,cat,1\na.jpg,cat,2\n", "line 3: a.jpg is also at .*line 2, with the id '1'"),
        ("path,labels\n../a.jpg,cat\n", "line 2: ../a.jpg leaves --root"),
        ("path,labels\n/elsewhere/a.jpg,cat\n", "line 2: /elsewhere/a.jpg is an absolute path outside of --root"),
        ("path,labels\nC:\\photos\\a.jpg,cat\n", "is an absolute path outside of --root"),
        ("path\na.jpg\n", "the column 'labels' is missing"),
        ("path,labels\na.jpg,cat,dog\n", "line 2: has another number of cells"),
        ("path,labels\na.jpg\n", "line 2: has another number of cells"),
        ("path,labels,split\na.jpg,cat,train\nb.jpg,cat,\n", "line 3: some rows name a split and some do not"),
        ("path,labels,split\na.jpg,cat,dev\n", "line 2: unknown split 'dev'"),
        ("path,labels\na.jpg,\n", "no row has a label"),
        ("path,labels\n", "holds no images"),
        ("path,labels\na.jpg,cat\n", "too few to draw"),
    ],
)
def test_wrong_csv_files_are_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_custom("mine", tmp_path, tmp_path / "a.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"path": "a.jpg"}', "line 1: the column 'labels' is missing"),
        ('{"path": "a.jpg", "labels": "cat"}', "labels must be a list"),
        ("[1]", "an object with path and labels"),
        ('{"path": ', "line 1: cannot be read as JSON"),
    ],
)
def test_wrong_json_lines_are_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        read_custom("mine", tmp_path, tmp_path / "a.jsonl")


def test_other_forms_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").touch()
    with pytest.raises(UserError, match=r"unknown form '\.xml'"):
        read_custom("mine", tmp_path, tmp_path / "a.xml")
    with pytest.raises(UserError, match="there is no such file"):
        read_custom("mine", tmp_path, tmp_path / "b.csv")
    (tmp_path / "latin.csv").write_bytes("path,labels\nä.jpg,cat\n".encode("latin-1"))
    with pytest.raises(UserError, match="not a CSV in UTF-8"):
        read_custom("mine", tmp_path, tmp_path / "latin.csv")
