"""Label Studio: its JSON and JSON-MIN exports."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.data.custom.annotation_tools.finding import ImageFinder, is_file
from sspa.stage2_training.data.custom.rows import Row, make_row, split_of_path

# What an upload's name is given in front.
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
_IMAGE_KEYS = ("image", "img", "photo", "picture", "url")
# What projects usually call a choice.
_CHOICE_NAMES = ("choice", "choices", "label", "labels", "class", "classes", "tag", "tags", "category")
# The parts of a result that hold labels.
_LABEL_KEYS = (
    *("choices", "rectanglelabels", "polygonlabels", "brushlabels", "keypointlabels", "ellipselabels", "labels"),
    "taxonomy",
)


def is_label_studio(content: Any) -> bool:
    """Whether JSON is a list of tasks, in either export."""
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return False
    first = content[0]
    return "annotations" in first or "completions" in first or _image_of(first) is not None


def label_studio_rows(tasks: list[Any], file: Path, images: ImageFinder) -> Iterator[Row]:
    """An image per task. Of several annotations, labels that only some have are unknown.

    Raises:
        UserError: a task is not of this form; the message names it.
    """
    skipped = disagreed = 0
    for number, task in enumerate(tasks):
        where = f"{file}, task {task.get('id', number) if isinstance(task, dict) else number}"
        if not isinstance(task, dict):
            raise UserError(f"{where}: is no object; export the project again as JSON")
        data = task["data"] if isinstance(task.get("data"), dict) else task
        named = _image_of(data)
        if named is None:
            raise UserError(f"{where}: names no image; its data has {', '.join(map(str, data)) or 'nothing'}")
        said = _annotations(task, where)
        if not said:
            skipped += 1
            continue
        there, some = set.intersection(*said), set.union(*said)
        disagreed += there != some
        image = _found(named, images, file.parent, where)
        labels = [*sorted(there), *(f"?{label}" for label in sorted(some - there))]
        yield make_row(where, str(image), labels, split_of_path(image, images.root), "")
    if skipped:
        say(f"{file}: {skipped:,} tasks without an annotation are left out")
    if disagreed:
        say(f"{file}: in {disagreed:,} tasks annotations differ; labels that only some of them have are unknown")


def _image_of(data: dict[str, Any]) -> str | None:
    for key in _IMAGE_KEYS:
        if isinstance(data.get(key), str):
            return str(data[key])
    return None


def _annotations(task: dict[str, Any], where: str) -> list[set[str]]:
    """The labels of each finished annotation."""
    if "annotations" not in task and "completions" not in task:
        # JSON-MIN: one annotation, each of its parts under the name that the project gave it.
        parts = {key: value for key, value in task.items() if key not in (*_IMAGE_KEYS, "id")}
        return [set(_flat_labels(parts))]
    found = []
    annotations = task.get("annotations", task.get("completions"))
    if not isinstance(annotations, list | None):
        raise UserError(f"{where}: annotations is {annotations!r:.60}; a list was expected")
    for annotation in annotations or ():
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result", []), list):
            raise UserError(f"{where}: an annotation is no object with a result; export the project again as JSON")
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            continue
        if annotation.get("ground_truth"):
            return [_labels(annotation)]
        found.append(_labels(annotation))
    return found


def _labels(annotation: dict[str, Any]) -> set[str]:
    values = [part.get("value") for part in annotation.get("result", []) if isinstance(part, dict)]
    return {
        label for value in values if isinstance(value, dict) for key in _LABEL_KEYS for label in _leaves(value.get(key))
    }


def _flat_labels(parts: dict[str, Any]) -> Iterator[str]:
    """JSON-MIN writes one choice as text, several as {"choices": [...]}, and shapes as a list of objects."""
    for key, value in parts.items():
        for entry in value if isinstance(value, list) else [value]:
            # Other text, such as a comment or a date, is no label.
            if isinstance(entry, str) and entry and key in _CHOICE_NAMES:
                yield entry
            elif isinstance(entry, dict):
                for name in _LABEL_KEYS:
                    yield from _leaves(entry.get(name))


def _leaves(value: Any) -> Iterator[str]:
    """The labels in a list; of a taxonomy's paths, the last names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _leaves(entry[-1:] if isinstance(entry, list) else entry)


def _found(named: str, images: ImageFinder, beside: Path, where: str) -> Path:
    parts = urlsplit(named.replace("\\", "/"))
    path = parse_qs(parts.query)["d"][0] if parts.query.startswith("d=") else unquote(parts.path)
    for name in (path, _UPLOAD_PREFIX.sub("", path.rpartition("/")[2])):
        found = images.find(name, beside, where)
        if is_file(found):
            return found
    return images.find(path.rpartition("/")[2], beside, where)
