import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.adapters.coco import read_instances
from sspa.stage2_training.data.custom.reading import read_custom
from sspa.stage2_training.data.custom.tables import TableColumns
from sspa.stage2_training.data.custom.understood import understood
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


def test_labels_that_the_label_set_lacks_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = LabelSet("pets", (Label("dog", "big dog"), Label("cat", "cat")))
    source = tmp_path / "a.csv"
    source.write_text("path,labels,split\na.jpg,cat;horse,train\nb.jpg,horse;?cow,val\nc.jpg,dog,test\n")
    assert read_custom("mine", tmp_path, source, labels).targets.tolist() == [[0, 1], [0, 0], [1, 0]]
    said = capsys.readouterr().err
    assert "labels that are not in the label set are left out" in said
    assert "horse (2), cow (1)" in said
    source.write_text("path,labels,split\na.jpg,Cat,train\n")
    with pytest.raises(UserError, match=r"a\.csv, line 2: label 'Cat' is 'cat' in the label set"):
        read_custom("mine", tmp_path, source, labels)


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
        ('{"path": "a.jpg", "labels": 1}', "labels must be a list"),
        ("[1]", "an object with path and labels"),
        ('{"path": ', "line 1: cannot be read as JSON"),
    ],
)
def test_wrong_json_lines_are_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        read_custom("mine", tmp_path, tmp_path / "a.jsonl")


def test_other_forms_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xls").touch()
    with pytest.raises(UserError, match=r"unknown form '\.xls'"):
        read_custom("mine", tmp_path, tmp_path / "a.xls")
    with pytest.raises(UserError, match="there is no such file"):
        read_custom("mine", tmp_path, tmp_path / "b.csv")
    (tmp_path / "latin.csv").write_bytes("path,labels\nä.jpg,cat\n".encode("latin-1"))
    with pytest.raises(UserError, match="not a CSV in UTF-8"):
        read_custom("mine", tmp_path, tmp_path / "latin.csv")


TWO = {"a.jpg": ("train", {"cat": 1, "dog": 0}), "b.jpg": ("val", {"cat": 1, "dog": 1})}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", b"path,labels,split\na.jpg,cat,train\nb.jpg,cat;dog,val\n"),
        ("UPPER.CSV", b"Path, Labels ,SPLIT\r\na.jpg,cat,Training\r\nb.jpg,cat; dog,valid\r\n\r\n"),
        ("semicolon.csv", b'path;labels;split\na.jpg;cat;train\nb.jpg;"cat,dog";val\n'),
        ("quoted.csv", b'path;labels;split\na.jpg;cat;train\nb.jpg;"cat;dog";val\n'),
        ("tab.tsv", b"path\tlabels\tsplit\na.jpg\tcat\ttrain\nb.jpg\tcat;dog\tval\n"),
        ("utf16.csv", "path,labels,split\na.jpg,cat,train\nb.jpg,cat;dog,val\n".encode("utf-16")),
        ("bom.csv", b"\xef\xbb\xbfpath,labels,split\na.jpg,cat,train\nb.jpg,cat;dog,val\n"),
        ("empty-columns.csv", b"path,labels,split,,\na.jpg,cat,train,,\nb.jpg,cat;dog,val,,\n,,,,\n"),
        ("wider.csv", b"path,labels,split\na.jpg,cat,train,,\nb.jpg,cat;dog,val,,\n"),
        ("index.csv", b",filename,tags,subset\n0,a.jpg,cat,train\n1,b.jpg,cat;dog,validation\n"),
        ("more.csv", b"width,path,labels,split\n640,a.jpg,cat,train\n480,b.jpg,cat;dog,val\n"),
        ("one-hot.csv", b"file_name,cat,dog,split\na.jpg,1,0,train\nb.jpg,1.0,True,val\n"),
        ("blank-marks.csv", b"image;cat;dog;set\na.jpg;1;;train\nb.jpg;1;1;val\n"),
        ("a-row-per-label.csv", b"path,label,split\na.jpg,cat,train\nb.jpg,cat,val\n./b.jpg,dog,val\n"),
        ("twice.csv", b"path,labels,split\na.jpg,cat,train\nb.jpg,cat;dog,val\nb.jpg,dog;cat,val\n"),
        ("backslash.csv", b"path,labels,split\n.\\a.jpg,cat,train\nb.JPG,cat;dog,val\n"),
        ("null.jsonl", b'\xef\xbb\xbf{"path": "a.jpg", "labels": ["cat"], "split": "train", "id": null, "width": 3}\n'
                       b'{"path": "b.jpg", "labels": ["cat", "dog"], "split": "val"}\n'),
    ],
)  # fmt: skip
def test_what_people_have_is_the_same_data(tmp_path: Path, name: str, content: bytes) -> None:
    images(tmp_path, *TWO)
    (tmp_path / name).write_bytes(content)
    assert table(read_custom("mine", tmp_path, tmp_path / name)) == TWO


def test_columns_that_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images(tmp_path, *TWO)
    source = tmp_path / "a.csv"
    source.write_text("path,photo,cat,dog,lamp,split\nx,a.jpg,1,0,0,train\ny,b.jpg,1,1,-1,val\n")
    assert table(read_custom("m", tmp_path, source, columns=TableColumns("Photo", ("cat", "dog")))) == TWO
    everything = read_custom("m", tmp_path, source, columns=TableColumns("photo", ("cat", "dog", "lamp")))
    assert table(everything)["b.jpg"] == ("val", {"cat": 1, "dog": 1, "lamp": -1})
    with pytest.raises(UserError, match=r"there is no column 'cow'; it has path, photo"):
        read_custom("m", tmp_path, source, columns=TableColumns("photo", ("cow",)))
    source.write_text("path,what,note,split\na.jpg,cat,x,train\nb.jpg,cat|dog,y,val\n")
    assert table(read_custom("m", tmp_path, source, columns=TableColumns(labels=("what",), separator="|"))) == TWO


def test_a_separator_is_taken_whole_and_only_line_ends_end_lines(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text('path,labels,split,note\na.jpg,"red kite, dog",train,x\u2028y\n', encoding="utf-8")
    found = read_custom("m", tmp_path, source, columns=TableColumns(separator=", "))
    assert (found.labels.keys, found.ids) == (("dog", "red kite"), ("a.jpg",))


def test_folders_that_are_splits(tmp_path: Path) -> None:
    images(tmp_path, "Train/cat/1.jpg", "Train/dog/2.jpg", "valid/cat/3.jpg", "valid/dog/4.jpg", "test/dog/5.jpg")
    found = read_custom("mine", tmp_path)
    assert found.labels.keys == ("cat", "dog")
    assert dict(zip(found.paths, found.splits, strict=True)) == {
        "Train/cat/1.jpg": "train",
        "Train/dog/2.jpg": "train",
        "test/dog/5.jpg": "test",
        "valid/cat/3.jpg": "val",
        "valid/dog/4.jpg": "val",
    }


def test_a_table_in_each_splits_folder(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        images(tmp_path, f"{split}/0.jpg", f"{split}/1.jpg")
        (tmp_path / split / "_classes.csv").write_text("filename, cat, dog\n0.jpg, 0, 1\n1.jpg, 1, -1\n")
    found = table(read_custom("mine", tmp_path))
    assert found["valid/1.jpg"] == ("val", {"cat": 1, "dog": -1})
    assert found["test/0.jpg"] == ("test", {"cat": 0, "dog": 1})
    assert len(found) == 6
    (tmp_path / "valid" / "_classes.csv").unlink()
    with pytest.raises(UserError, match=r"valid: has no annotations, as .*test has"):
        read_custom("mine", tmp_path)


def test_a_folder_beside_those_of_the_splits_is_no_label(tmp_path: Path) -> None:
    images(tmp_path, "train/cat/1.jpg", "test/cat/2.jpg", "annotations/plot.png")
    with pytest.raises(UserError, match="holds test and train, which are splits, beside annotations; move that"):
        read_custom("mine", tmp_path)


def test_a_single_label_may_be_called_train(tmp_path: Path) -> None:
    images(tmp_path, *(f"{label}/{k}.png" for label in ("train", "bus") for k in range(10)))
    assert read_custom("mine", tmp_path).labels.keys == ("bus", "train")


def test_what_is_no_image_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images(tmp_path, *(f"{label}/{k}.png" for label in ("cat", "dog") for k in range(10)))
    images(
        tmp_path, ".hidden/1.png", "cat/.thumbs/1.png", "__MACOSX/cat/1.png", "cat/deep/down/11.jpg", "cat/x.jpg/12.png"
    )
    (tmp_path / "cat" / "13.CR2").touch()
    (tmp_path / "cat" / "Thumbs.db").touch()
    (tmp_path / "dog" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "dog" / "also-a-cat.png").symlink_to(tmp_path / "cat" / "3.png")
    (tmp_path / "dog" / "4.png").write_bytes((tmp_path / "cat" / "4.png").read_bytes())
    bad = os.fsencode(tmp_path / "dog") + b"/\xff\xfe.png"
    Path(os.fsdecode(bad)).write_bytes(b"x")
    found = table(read_custom("mine", tmp_path))
    assert len(found) == 21
    assert found["cat/x.jpg/12.png"][1] == {"cat": 1, "dog": 0}
    assert found["cat/3.png"][1] == found["cat/4.png"][1] == {"cat": 1, "dog": 1}
    said = " ".join(capsys.readouterr().err.split())
    assert "3 files are left out: 1 .cr2, 1 links to nothing, 1 whose names are not UTF-8" in said
    assert "23 files are 21 images" in said


def test_the_same_name_in_other_unicode_forms_is_one_image(tmp_path: Path) -> None:
    composed, decomposed = "\u00e4.jpg", "a\u0308.jpg"
    images(tmp_path, decomposed)
    source = tmp_path / "a.csv"
    source.write_text(f"path,labels,split\n{composed},cat,train\n{decomposed},dog,train\n", encoding="utf-8")
    found = read_custom("mine", tmp_path, source)
    assert (found.paths, found.targets.tolist()) == ((decomposed,), [[1, 1]])


def test_a_key_may_hold_what_a_text_may_not(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    (tmp_path / "a.csv").write_text("path,labels,split\na.jpg,speed > 50 {x},train\n")
    (label,) = read_custom("mine", tmp_path, tmp_path / "a.csv").labels.labels
    assert label == Label("speed > 50 {x}", "speed 50 x")


def test_what_was_understood_and_what_is_odd(tmp_path: Path) -> None:
    rows = [
        "a.jpg,cat;rare,train",
        "b.jpg,cats,train",
        "c.jpg,cat,val",
        "d.jpg,cats,test",
        "e.jpg,,test",
        "f.jpg,?cat,train",
    ]
    (tmp_path / "a.csv").write_text("\n".join(["path,labels,split", *rows]))
    found = understood(read_custom("mine", tmp_path, tmp_path / "a.csv"))
    assert found["splits"] == {"train": 3, "val": 1, "test": 2}
    assert found["labels"]["cat"] == {
        "positives": {"train": 1, "val": 1, "test": 0},
        "unknown": {"train": 1, "val": 0, "test": 0},
    }
    assert found["first_rows"][0] == {
        "id": "a.jpg",
        "path": "a.jpg",
        "split": "train",
        "labels": ["cat", "rare"],
        "unknown": [],
    }
    assert found["odd"] == [
        "labels 'cat' and 'cats' differ in a plural s: are they two labels?",
        "label 'cats' is on no image of val",
        "label 'rare' is on one image only",
        "2 of 6 images are without any label (if their labels are not known: --blank unknown)",
    ]


def _coco(**changes: object) -> str:
    content = {
        "images": [{"id": "1", "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 10, "name": "dog"}, {"id": 9, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": "9"}, {"image_id": "2", "category_id": 10}],
    }
    return json.dumps({**content, **changes})


def test_coco_ids_may_be_numbers_or_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(_coco())
    found = read_instances(tmp_path / "a.json")
    assert (found.names, found.ids, found.targets.tolist()) == (["cat", "dog"], ["1", "2"], [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "it has no list 'images'"),
        ({"images": [{"file_name": "a.jpg"}]}, r"images\[0\]: has no id that is a number or text"),
        ({"images": [{"id": None, "file_name": "a.jpg"}]}, r"images\[0\]: has no id"),
        ({"images": [3]}, r"images\[0\]: has no id"),
        ({"images": [{"id": 1, "file_name": 7}]}, r"images\[0\]: file_name is 7; it must be text"),
        ({"images": [{"id": k, "file_name": "a.jpg"} for k in (1, "1")]}, r"images\[1\]: the id 1 is also .*\[0\]"),
        ({"categories": [{"id": 9, "name": None}]}, r"categories\[0\]: name is None"),
        ({"categories": [{"id": 9, "name": 3}]}, r"categories\[0\]: name is 3; it must be text"),
        ({"annotations": [{"image_id": 5, "category_id": 9}]}, r"annotations\[0\]: names image_id 5, but no image has"),
        ({"annotations": [{"image_id": 1, "category_id": 5}]}, r"annotations\[0\]: names category_id 5, but none has"),
        ({"annotations": [{"category_id": 9}]}, r"annotations\[0\]: names image_id None"),
        ({"annotations": [[]]}, r"annotations\[0\]: is no object"),
        ({"categories": [{"id": "9" * 5000, "name": "cat"}]}, r"annotations\[0\]: names category_id '9', but none has"),
    ],
)  # fmt: skip
def test_wrong_coco_files_name_the_place(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    (tmp_path / "a.json").write_text(_coco(**changes))
    with pytest.raises(UserError, match=message):
        read_custom("mine", tmp_path, tmp_path / "a.json")


def test_names_that_no_label_has(tmp_path: Path) -> None:
    for name in ("{{ 7 * 7 }}", "<|im_end|>", "c\u200bat", "x" * 300):
        (tmp_path / "a.jsonl").write_text(json.dumps({"path": "a.jpg", "labels": [name], "split": "train"}))
        with pytest.raises(UserError, match=r"a\.jsonl, line 1: label '"):
            read_custom("mine", tmp_path, tmp_path / "a.jsonl")
