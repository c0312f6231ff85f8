"""Folders of images: one per label, or train, val and test with one per label in each, or with a table in each."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.data.custom.rows import Row, known_split, make_row
from sspa.stage2_training.data.custom.tables import TableColumns, table_rows
from sspa.stage2_training.data.image_files import IMAGE_ENDINGS, entries_of, files_below, say_left_out

_CLASSES = "_classes.csv"


def folder_rows(root: Path, columns: TableColumns) -> Iterator[Row]:
    """The images below `root`. A copy or link of an image in several label folders is one image with their labels.

    Raises:
        UserError: the same image in two splits; or what `table_rows` raises.
    """
    folders = [entry for entry in entries_of(root) if entry.is_dir()]
    splits = [(folder, known_split(folder.name)) for folder in folders]
    if folders and all(split for _, split in splits):
        tables = [(folder / _CLASSES, split) for folder, split in splits if (folder / _CLASSES).is_file()]
        if tables:
            for file, split in tables:
                yield from table_rows(file, columns, split or "", f"{file.parent.name}/")
            return
        found = [(image, label, split or "") for folder, split in splits for image, label in _labelled(folder)]
    else:
        found = [(image, label, "") for image, label in _labelled(root)]
    yield from _one_each(root, found)


def _labelled(root: Path) -> Iterator[tuple[Path, str]]:
    """Every image below the label folders of `root`, with its label; what is left out is said."""
    left_out: Counter[str] = Counter()
    for entry in entries_of(root):
        if entry.is_dir():
            images, others = files_below(entry)
            left_out += others
            for image in images:
                yield image, entry.name
        elif entry.suffix.lower() in IMAGE_ENDINGS:
            left_out["images in no label's folder"] += 1
    say_left_out(root, left_out)


def _one_each(root: Path, found: list[tuple[Path, str, str]]) -> Iterator[Row]:
    """A row for each image, by its bytes; only files of the same size are read."""
    sizes = Counter(image.stat().st_size for image, _, _ in found)
    same: defaultdict[object, list[tuple[Path, str, str]]] = defaultdict(list)
    for image, label, split in found:
        content = image.read_bytes() if sizes[image.stat().st_size] > 1 else None
        same[image if content is None else hashlib.sha256(content).digest()].append((image, label, split))
    for copies in same.values():
        first, _, split = copies[0]
        for other, _, its_split in copies[1:]:
            if its_split != split:
                raise UserError(f"{other}: is the same image as {first}, in another split; remove one of them")
        path = first.relative_to(root).as_posix()
        yield make_row(path, path, dict.fromkeys(label for _, label, _ in copies), split, "")
    if len(same) < len(found):
        say(f"{root}: {len(found):,} files are {len(same):,} images; copies of one image count once, with all labels")
