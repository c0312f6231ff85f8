"""MS-COCO 2014: image labels from the instances JSON."""

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

    def __init__(self, content: dict[str, Any], path: Path) -> None:
        try:
            # In the order of the category ids, which have gaps.
            categories = sorted(content["categories"], key=lambda category: category["id"])
            columns = {category["id"]: column for column, category in enumerate(categories)}
            self.names = [category["name"] for category in categories]
            rows = {image["id"]: row for row, image in enumerate(content["images"])}
            self.ids = [str(image["id"]) for image in content["images"]]
            self.files = [image["file_name"] for image in content["images"]]
            self.targets = np.zeros((len(rows), len(columns)), dtype=np.int8)
            # Crowd regions count as well.
            for annotation in content["annotations"]:
                self.targets[rows[annotation["image_id"]], columns[annotation["category_id"]]] = 1
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not an instances file of COCO (missing or unknown: {error})") from None


def read_instances(path: Path) -> Instances:
    """Read an instances JSON.

    Raises:
        UserError: missing, no JSON (a download cut short, say), or not COCO's form.
    """
    try:
        content = read_json(path, largest=None)
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is the archive unpacked completely?") from None
    return Instances(content, path)
