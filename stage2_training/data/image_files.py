"""Reads any image as RGB, whatever camera, scanner or web page it comes from.

Unusual images are handled deliberately:
- EXIF orientation is applied. Of animations and multi-page files, the first frame is read.
- Greyscale, palette and CMYK images become RGB; transparency is composited onto white.
- 16-bit greyscale is scaled to 8 bits (Pillow alone would clip it to white); 32-bit integer and float images are
  scaled by their own extremes, since they define no range.
- A truncated or undecodable file is an error, never a half-grey image.
- Above 178 megapixels (Pillow's own limit against decompression bombs) an image is rejected by its header.
- JPEGs are decoded at 1/2, 1/4 or 1/8 size if the caller needs no more (`at_least`).
"""

import io
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.data.shards import open_in_shard

# Image generators and editors write their whole settings into a PNG; Pillow refuses more than a megabyte of text.
PngImagePlugin.MAX_TEXT_CHUNK = 16 << 20

_HEIC = (".heic", ".heif")


def _reads_heic() -> bool:
    """Teach Pillow HEIC, if the extra `data` is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


# Of the files that are images in a folder: what Pillow reads, photos and drawings in pixels.
IMAGE_ENDINGS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".jp2", ".j2k", ".jpx"),
        *(".bmp", ".dib", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
        *(_HEIC if _reads_heic() else ()),
    )
)

# What operating systems leave in folders.
_NOT_DATA = frozenset(("__macosx", "thumbs.db", "desktop.ini"))
# EXIF orientations of images that lie on their side.
_TURNED = (5, 6, 7, 8)
_WIDE_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


def entries_of(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden files and what operating systems leave there."""
    return sorted(
        entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name.casefold() not in _NOT_DATA
    )


def files_below(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The images at any depth below a folder, by their endings, and how many other files there are of which kind."""
    images: list[Path] = []
    left_out: Counter[str] = Counter()
    for entry in entries_of(folder):
        if entry.is_dir():
            below, others = files_below(entry)
            images += below
            left_out += others
        elif not entry.is_file():
            left_out["links to nothing"] += 1
        elif entry.suffix.lower() not in IMAGE_ENDINGS:
            left_out[entry.suffix.lower() or "without an ending"] += 1
        elif not is_utf8(entry.name):
            left_out["whose names are not UTF-8"] += 1
        else:
            images.append(entry)
    return images, left_out


def say_left_out(folder: Path, left_out: Counter[str]) -> None:
    """Say how many files of which kinds are no images, if any."""
    if left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in left_out.most_common())
        hint = " (the extra `data` reads HEIC)" if any(kind in left_out for kind in _HEIC) else ""
        say(f"{folder}: {sum(left_out.values()):,} files are left out: {kinds}{hint}")


def find_photos(root: Path) -> list[str]:
    """Every image below `root`, relative to it, with slashes, by name.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise UserError(f"--root {root}: there is no such folder; give the folder of your photos")
    found, left_out = files_below(root)
    say_left_out(root, left_out)
    if not found:
        raise UserError(f"--root {root}: has no images; give the folder of your photos")
    return [path.relative_to(root).as_posix() for path in found]


def is_utf8(name: str) -> bool:
    """Whether a file's name is text; names of other bytes cannot be printed or kept in a table."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class EncodedImage:
    """An image file that is not on a disk: in a stream, or in object storage. `read` returns its bytes, or raises
    OSError."""

    name: str
    read: Callable[[], bytes]

    def __str__(self) -> str:
        return self.name


def load_image(image: Path | EncodedImage, at_least: int | None = None) -> Image.Image:
    """The image as RGB, upright; see `load_sized`."""
    return load_sized(image, at_least)[0]


def load_sized(image: Path | EncodedImage, at_least: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The image as RGB, upright, and the width and height that it has upright before it is decoded smaller.

    Args:
        image: the file, or its place in a shard (see shards.py).
        at_least: the length in pixels that the short side must keep; a larger JPEG may be decoded smaller.

    Raises:
        UserError: the file is missing, not an image, damaged, truncated or too large; the message names it.
    """
    try:
        with warnings.catch_warnings():
            # Between 89 and 178 megapixels Pillow only warns; such images are read.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(_encoded(image)) as opened:
                size = opened.size
                if at_least is not None and min(size) > at_least:
                    _draft(opened, at_least)
                opened.load()
                turned = opened.getexif().get(ExifTags.Base.Orientation) in _TURNED
                return upright_rgb(opened), size[::-1] if turned else size
    except FileNotFoundError:
        raise UserError(f"{image}: there is no such image; the manifest or list names it") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{image}: too many pixels to decode ({error}); scale the image down first") from None
    except UnidentifiedImageError:
        raise UserError(f"{image}: not an image that Pillow can read; replace or remove it") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{image}: damaged image ({error}); replace or remove it") from None


def _encoded(image: Path | EncodedImage) -> Path | io.BytesIO:
    if isinstance(image, EncodedImage):
        return io.BytesIO(image.read())
    return open_in_shard(image) or image


def _draft(opened: Image.Image, at_least: int) -> None:
    """Ask the decoder (JPEG only) for the smallest scale whose short side is `at_least` long."""
    scale = at_least / min(opened.size)
    opened.draft("RGB" if opened.mode == "RGB" else None, tuple(int(-(-side * scale // 1)) for side in opened.size))  # type: ignore[arg-type]


def upright_rgb(image: Image.Image) -> Image.Image:
    """A decoded image of any mode as RGB on white, with its EXIF orientation applied."""
    image = ImageOps.exif_transpose(image)
    if image.mode in _WIDE_MODES:
        image = _eight_bit(image)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(canvas, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    values: np.ndarray[Any, Any] = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    elif not np.isfinite(values).all():
        raise ValueError("pixels that are not finite")
    else:
        low, high = values.min(), values.max()
        if low >= 0 and high <= 65535 and image.mode == "I":
            # Pillow opens some 16-bit PNGs as 32-bit integers.
            low, high = 0.0, 65535.0 if high > 255 else 255.0
    scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(np.rint(scaled).clip(0, 255).astype(np.uint8))
