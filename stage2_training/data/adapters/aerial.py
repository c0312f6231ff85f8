"""Remote sensing: MultiScene-Clean, MLRSNet, AID multi-label and UC Merced multi-label, from tables of 0 and 1."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.stage2_training.data.adapters.adapter import Adapter, Block, Published, first_existing
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.protocol import Protocol


class MultisceneClean(Adapter):
    """MultiScene-Clean: 7,000 / 7,000 images, 36 scene labels."""

    name = "multiscene-clean"
    title = "MultiScene-Clean"
    download = "MultiScene-Clean at gitlab.lrz.de/ai4eo/reasoning/multiscene (Hua et al., TGRS 2022)"
    layout = "Tra.csv | train.csv\nTest.csv | test.csv\nimages"
    protocols = ("multiscene-clean",)
    label_set = "multiscene"
    label_count = 36
    published = {"trainval": Published(7_000), "test": Published(7_000)}
    usual_folders = ("MultiScene-Clean",)

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        tables = {
            "train": read_table(first_existing(root, "Tra.csv", "train.csv")),
            "test": read_table(first_existing(root, "Test.csv", "test.csv")),
        }
        labels = self.labels(_same_labels(tables.values()))
        blocks = [
            Block(split, table.names, [f"images/{name}.jpg" for name in table.names], table.marks)
            for split, table in tables.items()
        ]
        return self.manifest(labels, protocol, blocks)


class Mlrsnet(Adapter):
    """MLRSNet: 109,161 images in 46 categories, 60 labels; no official split."""

    name = "mlrsnet"
    title = "MLRSNet"
    download = "Images and Labels at data.mendeley.com/datasets/7j9bv9vwsx (Qi et al., 2020)"
    layout = "Images\nLabels | labels"
    protocols = ("mlrsnet-80-20",)
    label_set = "mlrsnet"
    label_count = 60
    published = {"trainval": Published(87_338), "test": Published(21_823)}
    usual_folders = ("MLRSNet",)

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        files = sorted(first_existing(root, "Labels", "labels").glob("*.csv"))
        if not files:
            raise UserError(f"{root}/Labels: holds no CSV file; is the archive unpacked completely?")
        untold = {entry.name for entry in (root / "Images").glob("*/")} - {file.stem for file in files}
        if untold:
            raise UserError(f"{root}/Labels: lacks {min(untold)}.csv; is the archive unpacked completely?")
        tables = [read_table(file) for file in files]
        labels = self.labels(_same_labels(tables))
        names = [name for table in tables for name in table.names]
        folders = [file.stem for file, table in zip(files, tables, strict=True) for _ in table.names]
        paths = [f"Images/{folder}/{name}" for folder, name in zip(folders, names, strict=True)]
        marks = np.concatenate([table.marks for table in tables])
        ids = [Path(name).stem for name in names]
        return self.manifest(labels, protocol, _drawn_blocks(ids, paths, folders, marks))


class Aid(Adapter):
    """AID multi-label: 2,400 / 600 images, 17 labels."""

    name = "aid"
    title = "AID multi-label"
    download = "AID_multilabel, linked from github.com/Hua-YS/AID-Multilabel-Dataset (Hua et al., 2019)"
    layout = "multilabel.csv\nimages_tr | images/images_tr\nimages_test | images/images_test"
    protocols = ("aid-multilabel",)
    label_set = "aid"
    label_count = 17
    published = {"trainval": Published(2_400), "test": Published(600)}
    usual_folders = ("AID_multilabel", "AID-multilabel")

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        table = read_table(root / "multilabel.csv")
        row_of = {name: row for row, name in enumerate(table.names)}
        blocks = []
        for split, folder in {"train": "images_tr", "test": "images_test"}.items():
            images = sorted(first_existing(root, folder, f"images/{folder}").glob("*/*.jpg"))
            unknown = [image for image in images if image.stem not in row_of]
            if unknown:
                raise UserError(f"{root}/multilabel.csv: says nothing about {unknown[0]}; are both from one release?")
            if not images:
                raise UserError(f"{root}/{folder}: holds no images; is the archive unpacked completely?")
            marks = table.marks[[row_of[image.stem] for image in images]]
            paths = [image.relative_to(root).as_posix() for image in images]
            blocks.append(Block(split, [image.stem for image in images], paths, marks))
        return self.manifest(self.labels(table.labels), protocol, blocks)

    def contradictions(self, root: Path, manifest: Manifest) -> list[str]:
        """Images of multilabel.csv that are in neither folder: a subset of the data set, or missing files."""
        lost = [name for name in read_table(root / "multilabel.csv").names if name not in set(manifest.ids)]
        if not lost:
            return []
        return [f"{root}: {len(lost)} images of multilabel.csv are missing, the first {lost[0]}.jpg"]


class Ucm(Adapter):
    """UC Merced multi-label: 2,100 images in 21 categories, 17 labels; no official split."""

    name = "ucm"
    title = "UC Merced multi-label"
    download = "UCMerced_LandUse.zip at weegee.vision.ucmerced.edu/datasets, its labels at bigearth.eu/datasets"
    layout = (
        "Images\n"
        "LandUse_Multilabeled.txt | LandUse_Multilabeled.xlsx | multilabels/LandUse_Multilabeled.txt"
        " | multilabels/LandUse_Multilabeled.xlsx"
    )
    protocols = ("ucm-80-20",)
    label_set = "ucm"
    label_count = 17
    published = {"trainval": Published(1_680), "test": Published(420)}
    usual_folders = ("UCMerced_LandUse",)

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        table = read_table(first_existing(root, *self.layout.split("\n")[1].split(" | ")))
        categories = [name.rstrip("0123456789") for name in table.names]
        paths = [f"Images/{category}/{name}.tif" for category, name in zip(categories, table.names, strict=True)]
        labels = self.labels(table.labels)
        return self.manifest(labels, protocol, _drawn_blocks(table.names, paths, categories, table.marks))


@dataclass(frozen=True)
class LabelTable:
    """A published table: labels (C,) from its header, names (N,) from its first column, marks (N, C) int8."""

    labels: list[str]
    names: list[str]
    marks: NDArray[np.int8]


def read_table(path: Path) -> LabelTable:
    """A table with an image name and one 0 or 1 per label, as CSV, tab-separated text or Excel.

    Raises:
        UserError: it cannot be read, has no rows, or a cell is neither 0 nor 1; the message names the row.
    """
    rows = _excel_rows(path) if path.suffix == ".xlsx" else _text_rows(path)
    if len(rows) < 2:
        raise UserError(f"{path}: holds no rows; unpack or download it again")
    labels = [label.strip() for label in rows[0][1:]]
    while labels and not labels[-1]:
        labels.pop()  # spreadsheets keep empty trailing columns
    names, marks = [], []
    for number, row in enumerate(rows[1:], start=2):
        cells = [cell.strip() for cell in row[1 : len(labels) + 1]]
        values = [{"0": 0, "1": 1, "0.0": 0, "1.0": 1}.get(cell) for cell in cells]
        if len(values) != len(labels) or None in values:
            raise UserError(f"{path}, row {number}: {len(labels)} cells of 0 or 1 were expected after {row[0]!r}")
        names.append(row[0].strip())
        marks.append(values)
    return LabelTable(labels, names, np.array(marks, dtype=np.int8))


def _text_rows(path: Path) -> list[list[str]]:
    import csv

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            delimiter = "\t" if "\t" in head else ";" if ";" in head else ","
            return [row for row in csv.reader(file, delimiter=delimiter) if any(cell.strip() for cell in row)]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is the archive unpacked completely?") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a text table ({error}); unpack it again") from None


def _excel_rows(path: Path) -> list[list[str]]:
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise UserError(f"{path}: Excel tables need openpyxl: install sspa with the extra 'data'") from None
    try:
        sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
        rows = [["" if cell is None else str(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    except Exception as error:  # openpyxl passes on whatever zip, XML and number parsers raise on damaged files
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a readable Excel table ({reason}); unpack it again") from None
    return [row for row in rows if any(row)]


def _same_labels(tables: Iterable[LabelTable]) -> list[str]:
    first, *others = tables
    for table in others:
        if table.labels != first.labels:
            raise UserError(f"the tables of one data set name different labels: {first.labels} and {table.labels}")
    return first.labels


def _drawn_blocks(
    ids: Sequence[str], paths: Sequence[str], categories: Sequence[str], marks: NDArray[np.int8]
) -> list[Block]:
    """Train and test if there is no official split: a fifth of each category is test, chosen by a hash of the id."""
    members = defaultdict(list)
    for row, category in enumerate(categories):
        members[category].append(row)
    drawn = np.zeros(len(ids), dtype=bool)
    for rows in members.values():
        rows.sort(key=lambda row: hashlib.sha256(ids[row].encode()).digest())
        drawn[rows[: len(rows) // 5]] = True
    return [
        Block(split, [ids[row] for row in rows], [paths[row] for row in rows], marks[rows])
        for split, rows in {"train": np.flatnonzero(~drawn), "test": np.flatnonzero(drawn)}.items()
    ]
