"""COCO instances: an annotation for each label of an image."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from sspa.shared.terminal import say
from sspa.stage2_training.data.export_forms.marked_images import MarkedImages
from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.data.shards import open_in_shard


def write_coco(found: MarkedImages, target: Path, root: Path) -> int:
    """Write one file; images are opened for their sizes.

    The box is that of a predicted label's strongest region, else the whole image; predictions have a score.

    Raises:
        UserError: an image cannot be read.
    """
    category = {label: number for number, label in enumerate(found.labels, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    unknown = 0
    for number, image in enumerate(found.images, start=1):
        width, height = _size(root / image.path)
        images.append({"id": number, "file_name": image.path, "width": width, "height": height})
        unknown += len(image.unknown)
        for label in image.there:
            left, top, right, bottom = image.boxes.get(label, (0, 0, width, height))
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": category[label],
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": 0,
            }
            if found.predicted:
                annotation["score"] = image.probabilities[label]
            annotations.append(annotation)
    content = {
        "info": {"description": "image labels; boxes are only as good as their source"},
        "images": images,
        "categories": [{"id": number, "name": label} for label, number in category.items()],
        "annotations": annotations,
    }
    target.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    if unknown:
        say(f"{unknown:,} unknown labels look absent in COCO, which knows no unknown; JSON lines keep them")
    return len(images)


def _size(path: Path) -> tuple[int, int]:
    """Width and height as the image is shown, from its header if that says them."""
    try:
        with Image.open(open_in_shard(path) or path) as opened:
            # Orientations 5 to 8 lie on the side.
            turned = opened.getexif().get(0x0112, 1) >= 5
            return (opened.height, opened.width) if turned else opened.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        # With the words that all commands have for it.
        return load_image(path).size
