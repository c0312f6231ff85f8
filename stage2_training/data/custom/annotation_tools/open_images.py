"""Open Images' CSV files: one row per image and label, with a confidence of 1 (present) or 0 (verified absent)."""

import csv
from collections.abc import Iterator
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.data.custom.annotation_tools.finding import ImageFinder
from sspa.stage2_training.data.custom.rows import Row, known_split, make_row, split_of_path

_COLUMNS = ("ImageID", "LabelName", "Confidence")


def is_open_images(file: Path) -> bool:
    """Whether a CSV file's header is that of Open Images' labels or boxes."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
            header = opened.readline(10_000).strip().split(",")
    except OSError:
        return False
    return all(name in header for name in _COLUMNS)


def open_images_rows(file: Path, images: ImageFinder) -> Iterator[Row]:
    """The listed images. What nobody has verified about an image is unknown.

    Labels have the names of the class descriptions beside the file, if they are there.

    Raises:
        UserError: a row is not of this form; the message names the line.
    """
    marks: dict[str, dict[str, bool]] = {}
    first_line: dict[str, int] = {}
    names = _descriptions(file.parent)
    labels: dict[str, None] = {}
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
        reader = csv.DictReader(opened)
        try:
            for row in reader:
                where = f"{file}, line {reader.line_num}"
                key, name, confidence = (str(row.get(column) or "").strip() for column in _COLUMNS)
                if not key or not name or confidence not in ("0", "1", "0.0", "1.0"):
                    raise UserError(f"{where}: an ImageID, a LabelName and a Confidence of 1 or 0 were expected")
                label = names.get(name, name)
                labels[label] = None
                # Two boxes of one label, or a box and a label, can differ: present is what was seen.
                before = marks.setdefault(key, {})
                before[label] = before.get(label, False) or confidence.startswith("1")
                first_line.setdefault(key, reader.line_num)
        except csv.Error as error:
            raise UserError(f"{file}: not a table ({error}); download it again") from None
    if not names:
        say(f"{file}: no class-descriptions file lies beside it, so that labels are called by their codes")
    split = next(filter(None, map(known_split, file.stem.split("-"))), "")
    for key, known in marks.items():
        where = f"{file}, line {first_line[key]}"
        image = images.find(f"{key}.jpg", file.parent, where)
        there = [label for label, present in known.items() if present]
        unknown = [f"?{label}" for label in labels if label not in known]
        yield make_row(where, str(image), [*there, *unknown], split or split_of_path(image, images.root), key)


def _descriptions(folder: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for file in sorted(folder.glob("*class-descriptions*.csv")):
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
            names |= {row[0]: row[1] for row in csv.reader(opened) if len(row) == 2 and row[0].startswith("/")}
    return names
