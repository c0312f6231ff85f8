"""Lists of images: CSV and JSON lines. Those of a manifest are what `data prepare custom --source` reads."""

import csv
import json
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.stage2_training.data.export_forms.marked_images import MarkedImages

_SEPARATOR = ";"
_COLUMNS = ("path", "labels", "split", "id", "group")


def write_csv(found: MarkedImages, target: Path) -> int:
    """One line per image: its labels in one cell; of predictions, also a column with each label's probability.

    Raises:
        UserError: a label's name holds the separator of labels.
    """
    if mixed := [label for label in found.labels if _SEPARATOR in label]:
        raise UserError(f"label {mixed[0]!r} holds the {_SEPARATOR} that separates labels in a cell; write JSON lines")
    count = 0
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = ("path", "labels", *found.labels) if found.predicted else _COLUMNS
        writer.writerow(columns)
        for image in found.images:
            count += 1
            cell = _SEPARATOR.join((*image.there, *(f"?{label}" for label in image.unknown)))
            if found.predicted:
                writer.writerow((image.path, cell, *(f"{image.probabilities[label]:.4f}" for label in found.labels)))
            else:
                writer.writerow((image.path, cell, image.split, image.key, image.group))
    return count


def write_json_lines(found: MarkedImages, target: Path) -> int:
    """One object per image; of predictions, with every label's probability and box."""
    count = 0
    with target.open("w", encoding="utf-8", newline="") as file:
        for image in found.images:
            count += 1
            line: dict[str, object] = {"path": image.path}
            line["labels"] = [*image.there, *(f"?{label}" for label in image.unknown)]
            if found.predicted:
                line["probabilities"] = image.probabilities
                line |= {"boxes": image.boxes} if image.boxes else {}
            else:
                line |= {"split": image.split, "id": image.key} | ({"group": image.group} if image.group else {})
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return count
