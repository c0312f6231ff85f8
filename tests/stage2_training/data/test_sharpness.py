"""Images without detail are found, whatever their size and contrast."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from sspa.stage2_training.data.sharpness import BLURRED, blurred_images, sharpness


def picture(size: int = 400) -> Image.Image:
    """Rectangles of any size and brightness, as sharp as can be."""
    draw = np.random.default_rng(0)
    pixels = np.full((size, size, 3), 128, dtype=np.uint8)
    for _ in range(60):
        top, left = draw.integers(0, size - 20, 2)
        height, width = draw.integers(size // 20, size // 4, 2)
        pixels[top : top + height, left : left + width] = draw.integers(0, 256, 3)
    return Image.fromarray(pixels)


def test_sharpness_equals_a_loop() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (9, 7)).astype(np.uint8)
    values = [
        float(grey[y - 1, x]) + grey[y + 1, x] + grey[y, x - 1] + grey[y, x + 1] - 4.0 * grey[y, x]
        for y in range(1, 8)
        for x in range(1, 6)
    ]
    assert sharpness(Image.fromarray(grey)) == pytest.approx(np.var(values) / np.var(grey.astype(float)), rel=1e-5)


@pytest.mark.parametrize("size", [200, 400, 1600])
def test_blur_is_found_at_any_size_and_contrast_is_no_matter(size: int) -> None:
    sharp = picture(size)
    assert sharpness(sharp) > BLURRED
    assert sharpness(sharp.filter(ImageFilter.GaussianBlur(size / 100))) < BLURRED
    foggy = ImageEnhance.Contrast(sharp).enhance(0.3)
    assert sharpness(foggy) == pytest.approx(sharpness(sharp), rel=0.2)


def test_even_images_have_no_detail_and_tiny_ones_cannot_be_told() -> None:
    assert sharpness(Image.new("RGB", (300, 200), "white")) == 0
    assert sharpness(Image.new("RGB", (2, 50))) == float("inf")


def test_the_least_sharp_come_first_and_unreadable_ones_are_passed_over(tmp_path: Path) -> None:
    picture().save(tmp_path / "sharp.png")
    picture().filter(ImageFilter.GaussianBlur(4)).save(tmp_path / "shaken.png")
    Image.new("RGB", (300, 200)).save(tmp_path / "empty.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    found = blurred_images([tmp_path / f"{name}.png" for name in ("sharp", "shaken", "broken", "empty")])
    assert [path.stem for path, _ in found] == ["empty", "shaken"]
