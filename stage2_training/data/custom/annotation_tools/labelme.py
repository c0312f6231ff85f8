"""LabelMe: one JSON file per image, with flags and shapes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.json_files import read_json
from sspa.stage2_training.data.custom.annotation_tools.finding import ImageFinder
from sspa.stage2_training.data.custom.rows import Row, make_row, split_of_path
from sspa.stage2_training.data.image_files import entries_of

# Within the file can be the image itself.
_LARGEST = 512 << 20


def labelme_files(folder: Path) -> list[Path]:
    """The files of this form in a folder; empty if the first JSON file is something else."""
    found = [entry for entry in entries_of(folder) if entry.suffix.lower() == ".json"]
    if not found:
        return []
    try:
        content = read_json(found[0], _LARGEST)
    except UserError:
        return []
    return found if isinstance(content, dict) and "imagePath" in content else []


def labelme_rows(files: Sequence[Path], images: ImageFinder) -> Iterator[Row]:
    """An image per file; its labels are its flags that are set, and those of its shapes.

    Raises:
        UserError: a file is not of this form.
    """
    for file in files:
        content = read_json(file, _LARGEST)
        named = content.get("imagePath") if isinstance(content, dict) else None
        if not isinstance(named, str):
            raise UserError(f"{file}: has no imagePath, as LabelMe writes; move it elsewhere")
        image = images.find(named, file.parent, str(file), file)
        labels = [*_flags(content.get("flags"), file), *_shapes(content.get("shapes"), file)]
        yield make_row(str(file), str(image), dict.fromkeys(labels), split_of_path(image, images.root), "")


def _flags(flags: Any, file: Path) -> list[str]:
    if not isinstance(flags, dict | None):
        raise UserError(f"{file}: flags is {flags!r}; an object of true and false was expected")
    return [name for name, there in (flags or {}).items() if there is True]


def _shapes(shapes: Any, file: Path) -> list[str]:
    try:
        return [str(shape["label"]) for shape in shapes or ()]
    except (TypeError, KeyError) as error:
        raise UserError(f"{file}: a shape has no label; annotate its image again") from error
