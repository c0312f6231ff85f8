"""CVAT's own XML ("CVAT for images"): one file for all images, with tags and shapes."""

from collections.abc import Iterator
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.stage2_training.data.custom.annotation_tools.finding import ImageFinder
from sspa.stage2_training.data.custom.annotation_tools.xml_files import xml_elements
from sspa.stage2_training.data.custom.rows import Row, known_split, make_row, split_of_path

TAG = "annotations"


def cvat_rows(file: Path, images: ImageFinder) -> Iterator[Row]:
    """An image per element; its labels are those of its tags and shapes. The subset, if it is a split, is its split.

    Raises:
        UserError: the file is not of this form.
    """
    number = 0
    for number, found in enumerate(xml_elements(file, "image"), start=1):
        where = f"{file}, image {number}"
        name = found.get("name") or ""
        if not name:
            raise UserError(f"{where}: has no name; export the task again")
        image = images.find(name, file.parent, where)
        labels = [str(child.get("label")) for child in found if child.get("label")]
        split = known_split(found.get("subset") or "") or split_of_path(image, images.root)
        yield make_row(where, str(image), dict.fromkeys(labels), split, "")
    if not number:
        raise UserError(f"{file}: holds no <image>; export it from CVAT as `CVAT for images`")
