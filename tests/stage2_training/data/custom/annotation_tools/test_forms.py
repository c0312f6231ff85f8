"""Every tool's annotations of the same five images are the same data; what is no such file is one line."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sspa.shared.errors import UserError
from sspa.stage2_training.data.custom.reading import Source, read_custom
from sspa.stage2_training.data.images_on_disk import missing_images
from sspa.stage2_training.data.manifest import Manifest

SPLIT_OF = {"a": "train", "b": "train", "c": "val", "d": "test", "e": "test"}
LABELS_OF = {"a": ["cat"], "b": ["cat", "dog"], "c": ["dog"], "d": ["dog"], "e": []}
NAMES = ["cat", "dog"]


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 3), tuple(hashlib.sha256(str(path).encode()).digest()[:3])).save(path)
    return path


def pascal(name: str, labels: list[str], filename: str | None = None) -> str:
    objects = "".join(
        f"<object><name>{label}</name><difficult>1</difficult><bndbox><xmin>1</xmin></bndbox></object>"
        for label in [*labels, *labels]
    )
    head = "<folder>x</folder><source><annotation>PASCAL VOC2007</annotation><image>flickr</image></source>"
    return f"<annotation>{head}<filename>{filename or name + '.jpg'}</filename>{objects}</annotation>"


def write_pascal_beside(root: Path) -> None:
    for name, split in SPLIT_OF.items():
        image(root / split / f"{name}.jpg")
        (root / split / f"{name}.xml").write_text(pascal(name, LABELS_OF[name]))


def write_pascal_of_voc(root: Path) -> None:
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name in SPLIT_OF:
        image(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(pascal(name, LABELS_OF[name]))
    for split in ("train", "val", "test"):
        names = [f"{name}\n" for name, where in SPLIT_OF.items() if where == split]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(names))


def write_yolo_of_ultralytics(root: Path) -> None:
    for name, split in SPLIT_OF.items():
        image(root / "images" / split / f"{name}.jpg")
        _yolo_text(root / "labels" / split / f"{name}.txt", LABELS_OF[name])
    (root / "data.yaml").write_text(
        f"path: {root}\ntrain: images/train\nval: images/val\ntest: images/test\nnames:\n  0: cat\n  1: dog\n"
    )


def write_yolo_of_roboflow(root: Path) -> None:
    for name, split in SPLIT_OF.items():
        folder = "valid" if split == "val" else split
        image(root / folder / "images" / f"{name}.jpg")
        _yolo_text(root / folder / "labels" / f"{name}.txt", LABELS_OF[name])
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['cat', 'dog']\n"
    )


def write_yolo_of_darknet(root: Path) -> None:
    for name, split in SPLIT_OF.items():
        image(root / split / f"{name}.jpg")
        _yolo_text(root / split / f"{name}.txt", LABELS_OF[name])
    (root / "obj.names").write_text("cat\ndog\n")
    image(root / "train" / "a.jpg").with_suffix(".txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (root / "labels").mkdir()


def _yolo_text(file: Path, labels: list[str]) -> None:
    if labels:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{NAMES.index(label)} 0.5 0.5 0.2 0.2\n" for label in labels))


def write_coco_in_each_split(root: Path) -> None:
    for split in ("train", "valid", "test"):
        names = [name for name, where in SPLIT_OF.items() if where == split.removesuffix("id")]
        for name in names:
            image(root / split / f"{name}.jpg")
        content = {
            "images": [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate(names)],
            "categories": [{"id": number + 1, "name": label} for number, label in enumerate(NAMES)],
            "annotations": [
                {"image_id": number, "category_id": NAMES.index(label) + 1}
                for number, name in enumerate(names)
                for label in LABELS_OF[name]
            ],
        }
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))


def write_labelme(root: Path) -> None:
    for name, split in SPLIT_OF.items():
        image(root / split / f"{name}.jpg")
        labels = LABELS_OF[name]
        content = {
            "flags": {label: label in labels[:1] for label in NAMES},
            "shapes": [{"label": label, "points": []} for label in labels[1:]],
            "imagePath": f"..\\photos\\{name}.jpg",
            "imageData": None,
        }
        (root / split / f"{name}.json").write_text(json.dumps(content))


def write_image_folder(root: Path) -> None:
    for name, split in SPLIT_OF.items():
        image(root / split / f"{name}.jpg")
        with (root / split / "metadata.jsonl").open("a") as file:
            file.write(json.dumps({"file_name": f"{name}.jpg", "labels": LABELS_OF[name], "width": 3}) + "\n")


def write_image_folder_with_one_list(root: Path) -> None:
    lines = []
    for name, split in SPLIT_OF.items():
        image(root / split / f"{name}.jpg")
        lines.append(f"{split}/{name}.jpg,{';'.join(LABELS_OF[name])}\n")
    (root / "metadata.csv").write_text("file_name,label\n" + "".join(lines))


@pytest.mark.parametrize(
    "write",
    [
        write_pascal_beside,
        write_pascal_of_voc,
        write_yolo_of_ultralytics,
        write_yolo_of_roboflow,
        write_yolo_of_darknet,
        write_coco_in_each_split,
        write_labelme,
        write_image_folder,
        write_image_folder_with_one_list,
    ],
)
def test_a_folder_with_a_tools_annotations(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    expect_the_five(read_custom("mine", tmp_path), tmp_path)


def expect_the_five(manifest: Manifest, root: Path) -> None:
    """The five images with their labels and splits, in any order, each found."""
    found = {
        Path(path).stem: (split, [key for key, mark in zip(manifest.labels.keys, marks, strict=True) if mark == 1])
        for path, split, marks in zip(manifest.paths, manifest.splits, manifest.targets.tolist(), strict=True)
    }
    assert manifest.labels.keys == tuple(NAMES)
    assert found == {name: (SPLIT_OF[name], LABELS_OF[name]) for name in SPLIT_OF}
    assert (manifest.targets >= 0).all()
    assert missing_images(manifest, root) == []


def cvat(_: Path) -> tuple[str, str]:
    images = "".join(
        f'<image id="{number}" name="{split}/{name}.jpg" subset="{split}" width="3" height="3">'
        + "".join(
            f'<tag label="{label}" source="manual"/>' if place else f'<box label="{label}" xtl="1"><attribute/></box>'
            for place, label in enumerate(LABELS_OF[name])
        )
        + "</image>"
        for number, (name, split) in enumerate(SPLIT_OF.items())
    )
    return "annotations.xml", f'<?xml version="1.0"?><annotations><version>1.1</version>{images}</annotations>'


def label_studio(_: Path) -> tuple[str, str]:
    tasks = []
    for number, (name, split) in enumerate(SPLIT_OF.items()):
        labels = LABELS_OF[name]
        result = [
            {"type": "choices", "value": {"choices": labels[:1]}},
            {"type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": labels[1:]}},
        ]
        where = {
            "a": "/data/upload/7/0a1b2c3d-a.jpg",
            "b": f"/data/local-files/?d={split}/b.jpg",
            "c": "s3://bucket/photos/c.jpg",
        }.get(name, f"https://example.org/{name}.jpg?token=1")
        cancelled = {"was_cancelled": True, "result": []}
        tasks.append(
            {"id": number, "data": {"image": where}, "annotations": [cancelled, {"result": result}], "predictions": []}
        )
    return "project.json", json.dumps(tasks)


def label_studio_min(_: Path) -> tuple[str, str]:
    tasks = []
    for number, (name, split) in enumerate(SPLIT_OF.items()):
        labels = LABELS_OF[name]
        choice = {0: {}, 1: {"choice": labels[0] if labels else ""}, 2: {"choice": {"choices": labels}}}[len(labels)]
        shapes = {"label": [{"rectanglelabels": labels, "x": 1}]}
        tasks.append(
            {"id": number, "image": f"{split}\\{name}.jpg", "annotator": 1, **(choice if number % 2 else shapes)}
        )
    return "min.json", json.dumps(tasks)


@pytest.mark.parametrize("make", [cvat, label_studio, label_studio_min])
def test_a_file_with_a_tools_annotations(tmp_path: Path, make: Callable[[Path], tuple[str, str]]) -> None:
    root = tmp_path / "photos"
    for name, split in SPLIT_OF.items():
        image(root / split / f"{name}.jpg")
    file, content = make(root)
    (tmp_path / file).write_text(content)
    expect_the_five(read_custom("mine", root, tmp_path / file), root)


def test_annotations_in_another_folder(tmp_path: Path) -> None:
    root, notes = tmp_path / "photos", tmp_path / "notes"
    notes.mkdir()
    for name, split in SPLIT_OF.items():
        image(root / split / f"{name}.jpg")
        # As it was called before it was renamed.
        (notes / f"{name}.xml").write_text(pascal(name, LABELS_OF[name], filename=f"IMG_{name}.jpeg"))
    expect_the_five(read_custom("mine", root, (Source(notes),)), root)


def test_a_list_for_each_split(tmp_path: Path) -> None:
    for name, split in SPLIT_OF.items():
        image(tmp_path / "photos" / f"{name}.jpg")
        with (tmp_path / f"my_{split}_list.csv").open("a") as file:
            file.write("" if file.tell() else "path,labels\n")
            file.write(f"{name}.jpg,{';'.join(LABELS_OF[name])}\n")
    (tmp_path / "my_val_list.csv").rename(tmp_path / "other.csv")
    given = [str(tmp_path / "my_train_list.csv"), f"valid={tmp_path / 'other.csv'}", str(tmp_path / "my_test_list.csv")]
    sources = [Source.parse(text, several=True) for text in given]
    expect_the_five(read_custom("mine", tmp_path / "photos", sources), tmp_path / "photos")
    with pytest.raises(UserError, match="of which split"):
        Source.parse(str(tmp_path / "other.csv"), several=True)
    (tmp_path / "other.csv").write_text("path,labels,split\nc.jpg,dog,train\n")
    with pytest.raises(UserError, match=r"line 2: names the split 'train' in the file of val"):
        read_custom("mine", tmp_path / "photos", sources)


def test_open_images_knows_only_what_was_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("0001", "0002"):
        image(tmp_path / "photos" / f"{key}.jpg")
    source = tmp_path / "validation-annotations-human-imagelabels.csv"
    source.write_text(
        "ImageID,Source,LabelName,Confidence\n0001,v,/m/01yrx,1\n0001,v,/m/0bt9lr,0\n0002,v,/m/0bt9lr,1\n"
    )
    assert read_custom("mine", tmp_path / "photos", source).labels.keys == ("/m/01yrx", "/m/0bt9lr")
    assert "no class-descriptions file lies beside it" in capsys.readouterr().err
    (tmp_path / "class-descriptions.csv").write_text("/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    manifest = read_custom("mine", tmp_path / "photos", source)
    assert (manifest.labels.keys, manifest.ids) == (("Cat", "Dog"), ("0001", "0002"))
    assert manifest.targets.tolist() == [[1, 0], [-1, 1]]
    assert manifest.splits == ("val", "val")


def test_where_annotators_differ_a_label_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path / "train" / "a.jpg")
    said = [[{"value": {"choices": ["cat"]}}], [{"value": {"choices": ["cat", "dog"]}}]]
    task = {"data": {"image": "a.jpg"}, "annotations": [{"result": result} for result in said]}
    open_task = {"data": {"image": "b.jpg"}, "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps([task, open_task]))
    assert read_custom("mine", tmp_path, tmp_path / "a.json").targets.tolist() == [[1, -1]]
    heard = capsys.readouterr().err
    assert "1 tasks without an annotation are left out" in heard
    assert "in 1 tasks annotations differ" in heard


def test_two_images_that_could_be_meant_are_named(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        image(tmp_path / "photos" / folder / "a.jpg")
    (tmp_path / "a.xml").write_text(pascal("a", ["cat"]))
    with pytest.raises(UserError, match=r"a\.xml: .*one/a\.jpg and .*two/a\.jpg could both be meant"):
        read_custom("mine", tmp_path / "photos", tmp_path / "a.xml")


def test_an_annotated_image_that_is_gone_is_missing(tmp_path: Path) -> None:
    image(tmp_path / "train" / "a.jpg")
    for name in "ab":
        (tmp_path / "train" / f"{name}.xml").write_text(pascal(name, ["cat"]))
    image(tmp_path / "other" / "b.jpg")  # of the same name, but another image
    manifest = read_custom("mine", tmp_path, (Source(tmp_path / "train"),))
    assert missing_images(manifest, tmp_path) == [tmp_path / "train" / "b.jpg"]


def test_an_image_missing_from_its_split_is_not_that_of_another_split(tmp_path: Path) -> None:
    image(tmp_path / "train" / "a.jpg")
    image(tmp_path / "val" / "b.jpg")
    (tmp_path / "cvat.xml").write_text(
        '<annotations><image name="train/a.jpg"><tag label="cat"/></image>'
        '<image name="train/b.jpg"><tag label="cat"/></image></annotations>'
    )
    manifest = read_custom("mine", tmp_path, tmp_path / "cvat.xml")
    assert manifest.paths == ("train/a.jpg", "train/b.jpg")
    assert missing_images(manifest, tmp_path) == [tmp_path / "train" / "b.jpg"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.xml", "<annotation><object>", r"a\.xml: cannot be read as XML|a\.xml: is neither"),
        ("a.xml", "<other/>", "is neither CVAT's XML nor a Pascal VOC annotation"),
        ("a.xml", '<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "is neither CVAT"),
        ("a.xml", "<annotations><image/></annotations>", "image 1: has no name"),
        ("a.xml", "<annotations></annotations>", "holds no <image>"),
        ("a.yaml", "names: [", "cannot be read as YAML"),
        ("a.yaml", "- cat", "names no labels"),
        ("a.yaml", "train: x", "names no labels"),
        ("a.yaml", "names: {x: cat}", "names no labels"),
        ("a.json", '[{"data": {"text": "x"}, "annotations": []}]', "task 0: names no image; its data has text"),
        ("a.json", '[{"image": "a.jpg"}, 3]', "task 1: is no object"),
        ("a.json", '[{"id": 9, "data": {"image": "a.jpg"}, "annotations": [1]}]', "task 9: an annotation is no object"),
        ("a.json", '{"imagePath": 3}', "has no imagePath"),
        ("a.json", '{"imagePath": "a.jpg", "flags": [1]}', "flags is"),
        ("a.json", '{"imagePath": "a.jpg", "shapes": [1]}', "a shape has no label"),
        ("a.csv", "ImageID,LabelName,Confidence\nx,y,2\n", "line 2: an ImageID, a LabelName and a Confidence"),
    ],
)
def test_what_is_no_annotation_is_one_line(tmp_path: Path, file: str, content: str, message: str) -> None:
    image(tmp_path / "photos" / "a.jpg")
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_custom("mine", tmp_path / "photos", tmp_path / file)
    assert "\n" not in str(caught.value)


def test_a_number_that_no_label_has_names_its_line(tmp_path: Path) -> None:
    write_yolo_of_ultralytics(tmp_path)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n\n7 0.5 0.5 0.2 0.2\n")
    with pytest.raises(UserError, match=r"a\.txt, line 3: begins with '7', which is none of the 2 labels' numbers"):
        read_custom("mine", tmp_path)


def test_files_of_other_data_sets_do_not_hide_folders_that_are_labels(tmp_path: Path) -> None:
    for label in NAMES:
        for number in range(10):
            image(tmp_path / label / f"{number}.jpg")
    (tmp_path / "metadata.csv").write_text("patient,age\n1,2\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert read_custom("mine", tmp_path).labels.keys == tuple(NAMES)
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    with pytest.raises(UserError, match=r"data\.yaml: none of 20 images has a text file .* move this file elsewhere"):
        read_custom("mine", tmp_path)
