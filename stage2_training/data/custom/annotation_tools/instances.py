"""COCO instances of one's own images, as most tools export them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sspa.stage2_training.data.adapters.coco import Instances, read_instances
from sspa.stage2_training.data.custom.annotation_tools.finding import ImageFinder
from sspa.stage2_training.data.custom.rows import Row, make_row, split_of_path


def instance_rows(path: Path, images: ImageFinder, part: Instances | None = None) -> Iterator[Row]:
    """An image per entry, with the labels of its annotations.

    Names are relative to the data root; a file among its images may name them relative to its own folder.

    Raises:
        UserError: the file is not of this form; the message names the place.
    """
    part = part or read_instances(path)
    beside = path.parent.absolute()
    below = beside.relative_to(images.root).as_posix() if beside.is_relative_to(images.root) else "."
    for number, (key, file, target) in enumerate(zip(part.ids, part.files, part.targets, strict=True)):
        there = [part.names[column] for column in np.flatnonzero(target)]
        here = below != "." and not (images.root / file).is_file() and (beside / file).is_file()
        named = f"{below}/{file}" if here else file
        split = split_of_path(beside / "image", images.root)
        yield make_row(f"{path}, image {number}", named, there, split, f"{below}/{key}" if here else key)
