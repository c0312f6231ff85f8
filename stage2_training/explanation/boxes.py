"""The bounding boxes of each label, from a data set's annotations."""

from pathlib import Path
from xml.etree import ElementTree

from sspa.shared.errors import UserError

Box = tuple[float, float, float, float]


def voc_boxes(image: Path) -> tuple[dict[str, list[Box]], tuple[int, int]]:
    """The boxes (left, top, right, bottom) by label, and the image's (width, height), in pixels.

    Reads the PASCAL VOC annotation of JPEGImages/NAME.jpg.

    Raises:
        UserError: there is no annotation, or it cannot be read.
    """
    path = image.parent.parent / "Annotations" / f"{image.stem}.xml"
    try:
        root = ElementTree.parse(path).getroot()
        size = (_number(root, "size/width"), _number(root, "size/height"))
        boxes: dict[str, list[Box]] = {}
        for item in root.iter("object"):
            left, top, right, bottom = (_number(item, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
            # Annotations count pixels from 1, and the last one is inclusive.
            boxes.setdefault(item.findtext("name") or "", []).append((left - 1, top - 1, right, bottom))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: there is no such annotation; --explanations needs boxes, which data in VOC's layout have"
        ) from error
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise UserError(f"{path}: cannot be read as a VOC annotation ({error})") from error
    return boxes, size


def _number(item: ElementTree.Element, name: str) -> int:
    text = item.findtext(name)
    if text is None:
        raise ValueError(f"no {name}")
    return round(float(text))
