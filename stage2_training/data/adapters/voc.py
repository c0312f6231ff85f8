"""PASCAL VOC 2007 and 2012 in the development kit's layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.label_sets import read_label_set
from sspa.stage2_training.data.adapters.adapter import Adapter, Block, Published, read_lines, splits_present
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.protocol import Difficult, Protocol

# The devkit's class files use 0 for "only difficult objects"; here 1 is present, 0 absent, -1 unknown.
_DIFFICULT: dict[Difficult, int] = {"ignore": -1, "negative": 0, "positive": 1}


class _Voc(Adapter):
    # The devkit's list that corresponds to each split.
    lists: ClassVar[Mapping[str, str]]

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        labels = read_label_set("voc")
        folder = root / "ImageSets" / "Main"
        blocks = []
        for split in splits_present({split: folder / f"{name}.txt" for split, name in self.lists.items()}):
            list_name = self.lists[split]
            ids = [line.split()[0] for line in read_lines(folder / f"{list_name}.txt")]
            columns = [_read_class_file(folder / f"{key}_{list_name}.txt", ids) for key in labels.keys]
            marks = np.stack(columns, axis=1)  # (N, C): 1, 0 only difficult, -1 absent
            targets = np.where(marks == 1, 1, np.where(marks == 0, _DIFFICULT[protocol.difficult], 0)).astype(np.int8)
            blocks.append(Block(split, ids, [f"JPEGImages/{key}.jpg" for key in ids], targets))
        return self.manifest(labels, protocol, blocks)

    def contradictions(self, root: Path, manifest: Manifest) -> list[str]:
        """Images whose XML annotation disagrees with the class files."""
        ours = _DIFFICULT[manifest.protocol.difficult]
        found = []
        for key, target in zip(manifest.ids, manifest.targets, strict=True):
            path = root / "Annotations" / f"{key}.xml"
            try:
                objects = ElementTree.parse(path).iter("object")
            except (OSError, ElementTree.ParseError) as error:
                found.append(f"{path}: cannot be read ({error})")
                continue
            seen = dict.fromkeys(manifest.labels.keys, 0)
            for item in objects:
                name = item.findtext("name") or ""
                difficult = (item.findtext("difficult") or "0").strip() == "1"
                seen[name] = 1 if not difficult else seen.get(name, 0) or ours
            if [seen[label] for label in manifest.labels.keys] != target.tolist():
                found.append(f"{path}: the objects differ from ImageSets/Main")
        return found


class Voc2007(_Voc):
    """VOC 2007: 5,011 images to train on, 4,952 to test on, 20 labels."""

    name = "voc2007"
    title = "PASCAL VOC 2007"
    usual_folders = ("VOC2007", "VOCdevkit/VOC2007")
    lists = {"train": "train", "val": "val", "test": "test"}
    download = "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar at host.robots.ox.ac.uk/pascal/VOC/voc2007"
    layout = "ImageSets/Main/train.txt\nImageSets/Main/val.txt\nImageSets/Main/test.txt\nAnnotations\nJPEGImages"
    protocols = (
        "voc2007-ignore-difficult",
        "voc2007-dualcoop",
        "voc2007-positive-difficult",
        "voc2007-11-point",
        "voc2007-query2label",
    )
    label_set = "voc"
    label_count = 20
    published = {"trainval": Published(5011, 7306), "test": Published(4952, 7013)}


class Voc2012(_Voc):
    """VOC 2012: its test labels are not public, so its val list is our test, and our val is held out of train."""

    name = "voc2012"
    title = "PASCAL VOC 2012"
    usual_folders = ("VOC2012", "VOCdevkit/VOC2012")
    lists = {"train": "train", "test": "val"}
    download = "VOCtrainval_11-May-2012.tar at host.robots.ox.ac.uk/pascal/VOC/voc2012"
    layout = "ImageSets/Main/train.txt\nImageSets/Main/val.txt\nAnnotations\nJPEGImages"
    protocols = ("voc2012-val",)
    label_set = "voc"
    label_count = 20
    published = {"trainval": Published(5717), "test": Published(5823)}


def _read_class_file(path: Path, ids: list[str]) -> NDArray[np.int8]:
    """(N,) marks of one class: 1, 0 (only difficult objects), -1, in the order of `ids`."""
    marks = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("1", "0", "-1"):
            raise UserError(f"{path}, line {number}: {line!r} is not 'id mark' with a mark of 1, 0 or -1")
        marks[fields[0]] = int(fields[1])
    missing = [key for key in ids if key not in marks]
    if missing:
        raise UserError(f"{path}: says nothing about image {missing[0]!r} ({len(missing)} in all); unpack it again")
    return np.array([marks[key] for key in ids], dtype=np.int8)
