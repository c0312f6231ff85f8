"""MS-COCO 2014: image labels from the instances JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sspa.shared.errors import UserError
from sspa.shared.json_files import read_json
from sspa.stage2_training.data.adapters.adapter import Adapter, Block, Published
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.protocol import Protocol


class Coco2014(Adapter):
    """COCO 2014: its val set is the field's test set; our val is held out of train."""

    name = "coco2014"
    title = "MS-COCO 2014"
    download = "train2014.zip, val2014.zip and annotations_trainval2014.zip at cocodataset.org"
    layout = "annotations/instances_train2014.json\nannotations/instances_val2014.json\ntrain2014\nval2014"
    protocols = ("coco2014-all", "coco2014-annotated")
    label_set = "coco"
    label_count = 80
    published = {"trainval": Published(82_783), "test": Published(40_504)}
    published_labelled = {"trainval": Published(82_081), "test": Published(40_137)}
    usual_folders = ("coco", "coco2014", "COCO2014")

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        parts = {
            split: read_instances(root / "annotations" / f"instances_{folder}.json")
            for split, folder in {"train": "train2014", "test": "val2014"}.items()
        }
        names = parts["train"].names
        if parts["test"].names != names:
            raise UserError(f"{root}/annotations: train and val list different categories; unpack them again")
        blocks = [
            Block(split, part.ids, [f"{folder}/{file}" for file in part.files], part.targets)
            for (split, part), folder in zip(parts.items(), ("train2014", "val2014"), strict=True)
        ]
        return self.manifest(self.labels(names), protocol, blocks)


class Instances:
    """An instances JSON as image labels: names (C,), ids and files (N,), targets (N, C) int8."""

    def __init__(self, content: Any, path: Path) -> None:
        categories = sorted(_entries(content, "categories", path), key=lambda entry: _order(entry[0]))
        images = _entries(content, "images", path)
        # In the order of the category ids, which have gaps.
        columns = {key: column for column, (key, _, _) in enumerate(categories)}
        rows = {key: row for row, (key, _, _) in enumerate(images)}
        self.names = [_text(entry, "name", where) for _, entry, where in categories]
        self.ids = [key for key, _, _ in images]
        self.files = [_text(entry, "file_name", where) for _, entry, where in images]
        self.targets = np.zeros((len(rows), len(columns)), dtype=np.int8)
        # Crowd regions count as well.
        for number, annotation in enumerate(_section(content, "annotations", path)):
            try:
                row, column = rows[_id(annotation["image_id"])], columns[_id(annotation["category_id"])]
            except (KeyError, TypeError):
                raise UserError(_dangling(annotation, rows, f"{path}, annotations[{number}]")) from None
            self.targets[row, column] = 1


def read_instances(path: Path) -> Instances:
    """Read an instances JSON; ids may be numbers or text.

    Raises:
        UserError: missing, no JSON (a download cut short, say), or not COCO's form; the message names the place.
    """
    try:
        content = read_json(path, largest=None)
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is the archive unpacked completely?") from None
    return Instances(content, path)


def _section(content: Any, name: str, path: Path) -> list[Any]:
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise UserError(f"{path}: not an instances file of COCO: it has no list {name!r}")
    return found


def _entries(content: Any, name: str, path: Path) -> list[tuple[str, dict[str, Any], str]]:
    """The id, the entry and its place, of each entry of a section."""
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for number, entry in enumerate(_section(content, name, path)):
        where = f"{path}, {name}[{number}]"
        try:
            key = _id(entry["id"])
        except (KeyError, TypeError):
            raise UserError(f"{where}: has no id that is a number or text; give it one") from None
        if key in found:
            raise UserError(f"{where}: the id {key} is also that of {found[key][1]}; remove one of them")
        found[key] = entry, where
    return [(key, entry, where) for key, (entry, where) in found.items()]


def _id(value: Any) -> str:
    if not isinstance(value, int | str) or isinstance(value, bool) or value == "":
        raise TypeError(f"{value!r} is no id")
    return str(value)


def _order(key: str) -> tuple[bool, int, str]:
    # Python converts no text of thousands of digits.
    number = key.isascii() and key.isdigit() and len(key) < 20
    return not number, int(key) if number else 0, key


def _text(entry: dict[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name} is {value!r}; it must be text")
    return value


def _dangling(annotation: Any, rows: Mapping[str, int], where: str) -> str:
    if not isinstance(annotation, dict):
        return f"{where}: is no object with image_id and category_id"
    image, category = annotation.get("image_id"), annotation.get("category_id")
    missing = (
        f"image_id {image!r}, but no image has" if str(image) not in rows else f"category_id {category!r}, but none has"
    )
    return f"{where}: names {missing} that id; correct or remove it"
