"""Draws a map over its image."""

import base64
import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.inference.tagger import Tagger

_STRONGEST = 0.75  # opacity of the colour at the map's maximum


def over_image(image: Image.Image, region_map: NDArray[np.float32], lowest: float = 0.0) -> Image.Image:
    """The greyed image with the map (rows, columns) in colour: transparent at `lowest`, strongest at the maximum."""
    from matplotlib import colormaps

    span = float(region_map.max()) - lowest
    scaled = (region_map - lowest) / span if span > 0 else np.zeros_like(region_map)
    smooth = Image.fromarray(scaled.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR)
    share = np.asarray(smooth).clip(0, 1)[..., None]  # (H, W, 1)
    colours = colormaps["inferno"](share[..., 0])[..., :3] * 255
    grey = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    mixed = grey * (1 - _STRONGEST * share) + colours * _STRONGEST * share
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def small(image: Image.Image, longest: int = 320) -> Image.Image:
    """A copy whose longer side has at most `longest` pixels."""
    copy = image.copy()
    copy.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return copy


def data_uri(image: Image.Image) -> str:
    """The image as a JPEG data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def image_and_map(tagger: Tagger, path: Path, label: int) -> tuple[str, str | None]:
    """A small copy of an image, and over it the region map of the label at this position, as data URIs.

    The map is None where the head has no regions.

    Raises:
        UserError: the image cannot be read.
    """
    image = small(load_image(path))
    _, maps = tagger.maps(torch.stack([tagger.prepare(path)]))
    return data_uri(image), None if maps is None else data_uri(over_image(image, maps[0, label]))
