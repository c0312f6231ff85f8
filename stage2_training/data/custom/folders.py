"""Folders of images: one per label, or train, val and test with one per label in each; or a tool's annotations."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.data.custom.annotation_tools.finding import ImageFinder
from sspa.stage2_training.data.custom.annotation_tools.recognition import annotated_folder_rows
from sspa.stage2_training.data.custom.rows import Row, known_split, make_row, split_of_path
from sspa.stage2_training.data.custom.tables import TableColumns
from sspa.stage2_training.data.image_files import IMAGE_ENDINGS, entries_of, files_below, say_left_out


def folder_rows(root: Path, columns: TableColumns, images: ImageFinder) -> Iterator[Row]:
    """The images below `root`. A copy or link of an image in several label folders is one image with their labels.

    Raises:
        UserError: folders of splits beside others, annotations in some of them only, or what their readers raise.
    """
    if (annotated := annotated_folder_rows(root, images, columns)) is not None:
        yield from _with_splits_of_paths(annotated, images)
        return
    folders = [entry for entry in entries_of(root) if entry.is_dir()]
    splits = {folder: split for folder in folders if (split := known_split(folder.name))}
    others = [folder for folder in folders if folder not in splits]
    if len(splits) > 1 and others:
        names = " and ".join(folder.name for folder in splits)
        raise UserError(
            f"{root}: holds {names}, which are splits, beside {others[0].name}; move that elsewhere, or list the "
            "images in a table (--source)"
        )
    if others or not splits:
        yield from _one_each(root, [(image, label, "") for image, label in _labelled(root)])
        return
    readers = {folder: annotated_folder_rows(folder, images, columns) for folder in splits}
    with_annotations = [folder for folder, rows in readers.items() if rows is not None]
    if not with_annotations:
        found = [(image, label, split) for folder, split in splits.items() for image, label in _labelled(folder)]
        yield from _one_each(root, found)
        return
    if without := [folder for folder, rows in readers.items() if rows is None]:
        raise UserError(
            f"{without[0]}: has no annotations, as {with_annotations[0]} has; add them, or move the folder elsewhere"
        )
    for folder, rows in readers.items():
        for row in rows or ():
            yield replace(row, split=row.split or splits[folder])


def _with_splits_of_paths(rows: Iterable[Row], images: ImageFinder) -> Iterator[Row]:
    """The rows of one list for all splits, whose images are in folders called after them if no row names its split."""
    listed = list(rows)
    named = any(row.split for row in listed)
    for row in listed:
        split = row.split if named else split_of_path(images.root / row.path, images.root)
        yield replace(row, split=split)


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
    """A row for each image: links to one file, and copies of one name, are the same image.

    Only files of the same size are compared. Other files of the same bytes stay images of their own, and are said if
    they are in two splits.
    """
    sizes = Counter(image.stat().st_size for image, _, _ in found)
    labels_of: dict[object, list[str]] = {}
    first_of: dict[object, tuple[Path, str]] = {}
    split_of: dict[object, tuple[Path, str]] = {}
    across = []
    for image, label, split in found:
        content: object = image.resolve()
        if sizes[image.stat().st_size] > 1:
            content = hashlib.sha256(image.read_bytes()).digest()
        before = split_of.setdefault(content, (image, split))
        if before[1] != split:
            across.append((before[0], image))
        same = (content, split, "" if isinstance(content, Path) else image.resolve().name)
        first_of.setdefault(same, (image, split))
        labels_of.setdefault(same, []).append(label)
    for labels, (image, split) in zip(labels_of.values(), first_of.values(), strict=True):
        path = image.relative_to(root).as_posix()
        yield make_row(path, path, dict.fromkeys(labels), split, "")
    if len(first_of) < len(found):
        say(f"{root}: {len(found):,} files are {len(first_of):,} images; a copy in another folder adds its label")
    if across:
        say(
            f"{root}: look at this: {len(across):,} images are in two splits, such as {across[0][0]} and {across[0][1]}"
        )
