"""PASCAL VOC 2007 and 2012 in the development kit's layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.label_sets import read_label_set
from sspa.stage2_training.data.adapters.adapter import Adapter, Published
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.protocol import Difficult, Protocol

# In the devkit's class files 0 means "only difficult objects"; ours says 1 there, 0 not there, -1 unknown.
_DIFFICULT: dict[Difficult, int] = {"ignore": -1, "negative": 0, "positive": 1}


class _Voc(Adapter):
    year: ClassVar[str]
    # The devkit's list for each of our splits.
    lists: ClassVar[Mapping[str, str]]

    def locate(self, root: Path) -> Path:
        for candidate in (root, root / f"VOC{self.year}", root / "VOCdevkit" / f"VOC{self.year}"):
            if (candidate / "ImageSets" / "Main").is_dir():
                return candidate
        raise UserError(
            f"{root}: holds no VOC{self.year} development kit (VOCdevkit/VOC{self.year}/ImageSets/Main);"
            " unpack it there"
        )

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        labels = read_label_set("voc")
        ids: list[str] = []
        splits: list[str] = []
        blocks: list[NDArray[np.int8]] = []
        for split, list_name in self.lists.items():
            split_ids = _read_list(root / "ImageSets" / "Main" / f"{list_name}.txt")
            ids += split_ids
            splits += [split] * len(split_ids)
            columns = [
                _read_class_file(root / "ImageSets" / "Main" / f"{key}_{list_name}.txt", split_ids)
                for key in labels.keys
            ]
            blocks.append(np.stack(columns, axis=1))
        marks = np.concatenate(blocks)  # (N, C): 1, 0 only difficult, -1 not there
        targets = np.where(marks == 1, 1, np.where(marks == 0, _DIFFICULT[protocol.difficult], 0)).astype(np.int8)
        return Manifest(
            dataset=self.name,
            labels=labels,
            protocol=protocol.name,
            note=self._note(splits),
            ids=tuple(ids),
            paths=tuple(f"JPEGImages/{key}.jpg" for key in ids),
            splits=tuple(splits),
            targets=targets,
        )

    def _note(self, splits: list[str]) -> str:
        test = splits.count("test")
        trainval = len(splits) - test
        all_trainval, all_test = self.published["trainval"].images, self.published["test"].images
        if (trainval, test) == (all_trainval, all_test):
            return ""
        return (
            f"a cut of {self.title}: {trainval:,} of {all_trainval:,} training and {test:,} of {all_test:,} test photos"
        )


class Voc2007(_Voc):
    """VOC 2007: 5,011 pictures to train on, 4,952 to test on, 20 labels."""

    name = "voc2007"
    title = "PASCAL VOC 2007"
    year = "2007"
    lists = {"train": "train", "val": "val", "test": "test"}
    download = "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar from host.robots.ox.ac.uk/pascal/VOC/voc2007"
    layout = "JPEGImages\nAnnotations\nImageSets/Main/train.txt\nImageSets/Main/val.txt\nImageSets/Main/test.txt"
    protocols = (
        "voc2007-ignore-difficult",
        "voc2007-dualcoop",
        "voc2007-positive-difficult",
        "voc2007-11-point",
    )
    label_count = 20
    published = {"trainval": Published(5011), "test": Published(4952)}


def _read_list(path: Path) -> list[str]:
    return [line.split()[0] for line in _lines(path)]


def _read_class_file(path: Path, ids: list[str]) -> NDArray[np.int8]:
    """(N,) marks of one class: 1, 0 (only difficult objects), -1, in the order of `ids`."""
    marks = {}
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("1", "0", "-1"):
            raise UserError(f"{path}, line {number}: {line!r} is not 'id mark' with a mark of 1, 0 or -1")
        marks[fields[0]] = int(fields[1])
    missing = [key for key in ids if key not in marks]
    if missing:
        raise UserError(f"{path}: says nothing about picture {missing[0]!r} ({len(missing)} in all); unpack it again")
    return np.array([marks[key] for key in ids], dtype=np.int8)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text().split("\n") if line.strip()]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is the archive unpacked completely?") from None
    if not lines:
        raise UserError(f"{path}: is empty; unpack the archive again")
    return lines
