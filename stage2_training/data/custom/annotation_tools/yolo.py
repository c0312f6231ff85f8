"""YOLO text files: one with the labels' names, and one per image whose lines begin with a label's number."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.shared.yaml_files import parse_yaml
from sspa.stage2_training.data.custom.annotation_tools.finding import ImageFinder
from sspa.stage2_training.data.custom.rows import Row, known_split, make_row, split_of_path
from sspa.stage2_training.data.image_files import files_below

_SETTINGS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAMES = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
_SPLIT_KEYS = ("train", "val", "valid", "test")


def yolo_names_file(folder: Path) -> Path | None:
    """The file with the labels' names in a folder, or in its folder labels."""
    candidates = [folder / name for name in (*_SETTINGS, *_NAMES)] + [folder / "labels" / name for name in _NAMES]
    return next((file for file in candidates if file.is_file()), None)


def yolo_rows(names_file: Path, images: ImageFinder) -> Iterator[Row]:
    """Every image that the settings name, or that lies below the data root; without a text file it has no label.

    Raises:
        UserError: a file is not of this form, or a number stands for no name; the message names the line.
    """
    settings = _settings(names_file)
    names = _names(settings, names_file)
    count = without = 0
    for image, split in _images(settings, names_file, images):
        file = _text_file(image)
        numbers = _numbers(file, names) if file.is_file() else []
        count, without = count + 1, without + (not file.is_file())
        yield make_row(str(file), str(image), dict.fromkeys(names[number] for number in numbers), split, "")
    if without == count:
        raise UserError(
            f"{names_file}: none of {count:,} images has a text file with its labels; if folders are the labels, move "
            "this file elsewhere"
        )
    if without:
        say(f"{names_file}: {without:,} images have no text file of their own, and so no label")


def _settings(file: Path) -> dict[str, Any]:
    text = _read(file)
    if file.suffix not in (".yaml", ".yml"):
        return {"names": [line.strip() for line in text.splitlines() if line.strip()]}
    settings = parse_yaml(text, file)
    if not isinstance(settings, dict):
        raise UserError(f"{file}: names no labels; write them as `names: [cat, dog]`")
    return settings


def _names(settings: dict[str, Any], file: Path) -> dict[int, str]:
    names = settings.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    try:
        found = {int(number): str(name) for number, name in names.items()}  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError):
        found = {}
    if not found:
        raise UserError(f"{file}: names no labels; write them as `names: [cat, dog]`")
    return found


def _images(settings: dict[str, Any], file: Path, images: ImageFinder) -> Iterator[tuple[Path, str]]:
    base = file.parent / str(settings.get("path") or "")
    any_found = False
    for key in _SPLIT_KEYS:
        places = settings.get(key) or []
        for place in places if isinstance(places, list) else [places]:
            # Roboflow's files say ../train/images for a folder beside them.
            ways = [base / str(place), file.parent / str(place), file.parent / str(place).removeprefix("../")]
            if (found := next((way for way in ways if way.exists()), None)) is None:
                say(f"{file}: {key} is {place}, which does not exist; there are no images of that split")
                continue
            any_found = True
            listed = files_below(found)[0] if found.is_dir() else _listed(found, images)
            yield from ((image.absolute(), known_split(key) or "") for image in listed)
    if not any_found:
        yield from ((image, split_of_path(image, images.root)) for image in images.images)


def _listed(file: Path, images: ImageFinder) -> list[Path]:
    lines = [line.strip() for line in _read(file).splitlines() if line.strip()]
    return [images.find(line, file.parent, f"{file}, line {number}") for number, line in enumerate(lines, start=1)]


def _text_file(image: Path) -> Path:
    """Beside the image, or in the folder labels where the image is in one called images."""
    parts = list(image.parts)
    if "images" in parts:
        place = len(parts) - 1 - parts[::-1].index("images")
        mirrored = Path(*parts[:place], "labels", *parts[place + 1 :]).with_suffix(".txt")
        if mirrored.is_file():
            return mirrored
    return image.with_suffix(".txt")


def _numbers(file: Path, names: dict[int, str]) -> list[int]:
    numbers = []
    for line, text in enumerate(_read(file).splitlines(), start=1):
        if not text.strip():
            continue
        first = text.split()[0]
        if not (first.isascii() and first.isdigit() and len(first) < 10 and int(first) in names):
            raise UserError(
                f"{file}, line {line}: begins with {first[:40]!r}, which is none of the {len(names)} labels' numbers"
            )
        numbers.append(int(first))
    return numbers


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as UTF-8 text ({error})") from error
