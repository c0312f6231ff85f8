"""A good input of every kind that is read, small, to be damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sspa.shared.knowledge_format import write_knowledge
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.manifest import Manifest, write_manifest
from sspa.stage2_training.data.reviewed.entries import Answer, Head, ReviewedLabel, Undo
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.runs.records import TaughtRecord
from sspa.stage2_training.runs.taught import TaughtMarks, write_taught

# The images and labels of taught.parquet.
TAUGHT = (("a", "b"), ("cat", "dog"))
LABELS = LabelSet("pets", (Label("cat", "cat"), Label("dog", "dog")))


def write_good_inputs(good: Path) -> None:
    """Write them to the folder `good`."""
    rows = [{"label": key, "description": f"A {key} has four legs."} for key in ("cat", "dog", "cow")]
    write_knowledge(good / "knowledge.parquet", rows)
    marks = np.array([[1, 0], [0, 1], [1, -1]], np.int8)
    ids = Texts(("a", "b", "c"))
    write_manifest(Manifest("d", LABELS, get_protocol("custom"), "", ids, ids, Texts(("train", "val", "test")), marks),
                   good / "manifest.parquet")  # fmt: skip
    (good / "labels.txt").write_text("# domain: natural\ncat\tcat\thint\ndog\n")
    (good / "own.yaml").write_text("name: five\nbased_on: custom\nthreshold: 0.3\ntop_k: 5\nheadline: [mAP, 'CF1@5']\n")
    about = TaughtRecord(teacher="self", weights="0", images=1, present=1, absent=1)
    write_taught(TaughtMarks(np.array([[1, 0], [-1, -1]], np.int8), about), *TAUGHT, good / "taught.parquet")
    comparison = "about: a\nreference: b\nseeds: [0]\nvariants: {b: {}, c: {training: {lr: 0.1}}}\n"
    (good / "comparison.yaml").write_text(comparison)
    (good / "rows.csv").write_text("label,sample,description\ncat,0,A cat has a tail.\n")
    (good / "rows.jsonl").write_text('{"label": "cat", "sample": 0, "description": "A cat has a tail."}\n')
    (good / "data.csv").write_text("path,labels,split\na.jpg,cat;dog,train\nb.jpg,?cat,val\n")
    (good / "marks.tsv").write_text("image\tcat\tdog\tset\na.jpg\t1\t0\ttrain\nb.jpg\t-1\t1\tvalid\n")
    (good / "data.jsonl").write_text('{"path": "a.jpg", "labels": ["cat"], "split": "train"}\n')
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    marks_of = [{"image_id": 1, "category_id": 7, "iscrowd": 0}]
    coco = {"images": images, "categories": [{"id": 7, "name": "cat"}], "annotations": marks_of}
    (good / "coco.json").write_text(json.dumps(coco))
    _write_annotations(good)
    _write_official_tables(good)
    (good / "journal").write_bytes(b"")
    head = Head(labels=tuple(ReviewedLabel(key=label.key, text=label.text) for label in LABELS.labels))
    answer = Answer(path="a.jpg", marks={"cat": 1, "dog": 0}, suggested={"cat": 0.9})
    lines = [entry.model_dump_json() + "\n" for entry in (head, answer, Undo(undo=answer.id))]
    (good / "mine.review.jsonl").write_text("".join(lines))
    config = {"embed_dim": 40, "vision_cfg": {"layers": 1, "width": 32}, "text_cfg": {"layers": 1, "width": 32}}
    (good / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.save(torch.nn.Linear(2, 2).state_dict(), good / "weights.pt")
    torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 2))).save(str(good / "archive.pt"))
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    for ending in ("png", "jpg", "gif", "tiff", "webp"):
        Image.fromarray(pixels).save(good / f"image.{ending}")


def _write_annotations(good: Path) -> None:
    """Small files of annotation tools."""
    objects = "<object><name>cat</name></object><object><name>dog</name></object>"
    files = {
        "voc.xml": f"<annotation><filename>a.jpg</filename>{objects}</annotation>",
        "cvat.xml": '<annotations><image name="a.jpg" subset="train"><tag label="cat"/></image>'
        '<image name="b.jpg"><box label="dog"/></image></annotations>',
        "studio.json": json.dumps(
            [{"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"}, "annotations": [
                {"was_cancelled": False, "result": [{"type": "choices", "value": {"choices": ["cat", "dog"]}}]}]}]
        ),
        "min.json": json.dumps([{"id": 1, "image": "a.jpg", "choice": {"choices": ["cat"]}, "label": [
            {"rectanglelabels": ["dog"]}]}]),
        "labelme.json": json.dumps(
            {"imagePath": "a.jpg", "flags": {"cat": True}, "shapes": [{"label": "dog", "points": []}]}
        ),
        "data.yaml": "names:\n  0: cat\n  1: dog\ntrain: images\n",
        "openimages.csv": "ImageID,Source,LabelName,Confidence\na,v,/m/01,1\nb,v,/m/02,0\n",
    }  # fmt: skip
    for name, content in files.items():
        (good / name).write_text(content)


def _write_official_tables(good: Path) -> None:
    """Official files of data sets: MATLAB's, text and Excel."""
    from openpyxl import Workbook
    from scipy.io import savemat

    def cells(values: list[str]) -> Any:
        return np.array([[value] for value in values], dtype=object)

    pa100k: dict[str, Any] = {"attributes": cells(["Female", "Hat"])}
    for split in ("train", "val", "test"):
        pa100k[f"{split}_images_name"] = cells([f"{split}.jpg"])
        pa100k[f"{split}_label"] = np.array([[1, 0]], dtype=np.uint8)
    savemat(good / "annotation.mat", pa100k)
    data = np.zeros((3, 109))
    data[:, 0], data[:, 4] = [1, 2, 3], 1
    parts = {name: np.array([[row]]) for row, name in enumerate(("train", "val", "test"), start=1)}
    partition = np.array([[parts] for _ in range(5)], dtype=object)
    peta = {"data": data, "attribute": cells([f"a{k}" for k in range(105)]), "selected": np.arange(1, 36),
            "partition": partition}  # fmt: skip
    savemat(good / "PETA.mat", {"peta": peta})
    table: list[list[Any]] = [["IMAGE\\LABEL", "car", "tree"], ["beach01", 1, 0], ["beach02", 0, 1]]
    (good / "LandUse_Multilabeled.txt").write_text("\n".join("\t".join(map(str, row)) for row in table))
    book = Workbook()
    for row in table:
        book.active.append(row)
    book.save(good / "LandUse_Multilabeled.xlsx")
