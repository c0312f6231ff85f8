from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sspa.shared.errors import UserError
from sspa.stage2_training.data.image_files import IMAGE_ENDINGS, EncodedImage, find_photos, load_image, load_sized
from sspa.stage2_training.data.transforms import TransformOptions, make_transform


def photo(height: int = 40, width: int = 60) -> Image.Image:
    """Smooth colours with a bright top left corner."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 3, y * 4, (x + y) * 2], axis=2).astype(np.uint8)
    pixels[:10, :10] = 250
    return Image.fromarray(pixels)


def pixels(path: Path) -> np.ndarray:
    image = load_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown rotated by 270 degrees
    photo().save(tmp_path / "a.jpg", exif=exif, quality=95)
    loaded = pixels(tmp_path / "a.jpg")
    assert loaded.shape == (60, 40, 3)
    assert loaded[:8, -8:].min() > 200  # the corner went from top left to top right


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_other_colour_modes_keep_what_they_show(tmp_path: Path, mode: str) -> None:
    source = photo().convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    source.save(path)
    assert np.abs(pixels(path) - np.asarray(source.convert("RGB")).astype(int)).max() <= 2


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    photo().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert pixels(tmp_path / "a.jpg")[2:8, 2:8].min() > 200


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = (np.arange(256, dtype=np.uint16)[None, :] * 257).repeat(4, axis=0)
    for name in ("a.png", "a.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        assert (pixels(tmp_path / name)[0, :, 0] == np.arange(256)).all()


def test_float_image_is_scaled_by_its_extremes(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(-1, 1, 256, dtype=np.float32)[None, :]).save(tmp_path / "a.tif")
    loaded = pixels(tmp_path / "a.tif")[0, :, 0]
    assert (loaded[0], loaded[-1]) == (0, 255)
    assert (np.diff(loaded) >= 0).all()


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("LA", (4, 4), (0, 0)).save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert (pixels(tmp_path / name) == 255).all()


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        loaded = pixels(tmp_path / name)
        assert loaded[..., 0].min() > 240
        assert loaded[..., 2].max() < 20


def test_truncated_text_and_missing_files_are_named(tmp_path: Path) -> None:
    photo(400, 600).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.png").touch()
    for name, reason in {
        "cut.jpg": "damaged",
        "text.jpg": "not an image",
        "empty.png": "not a",
        "none.png": "no such",
    }.items():
        with pytest.raises(UserError, match=f"{name}: .*{reason}") as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_400_megapixels_are_refused_by_the_header(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "vast.png")
    with pytest.raises(UserError, match=r"vast\.png: too many pixels"):
        load_image(tmp_path / "vast.png")


def test_large_jpeg_decodes_smaller_but_never_below_what_is_asked(tmp_path: Path) -> None:
    photo(800, 1200).save(tmp_path / "a.jpg")
    assert load_image(tmp_path / "a.jpg").size == (1200, 800)
    assert load_image(tmp_path / "a.jpg", at_least=260).size == (600, 400)
    assert load_image(tmp_path / "a.jpg", at_least=401).size == (1200, 800)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("resize", ["crop", "squash"])
@pytest.mark.parametrize("train", [True, False])
def test_one_pixel_and_thin_images_become_whole_tensors(size: tuple[int, int], resize: str, train: bool) -> None:
    options = TransformOptions(train_resize=resize, randaugment=2, cutout=1.0)
    transform = make_transform((32, 48), train, options)
    tensor = transform(Image.new("RGB", size, "white"))
    assert tensor.shape == (3, 32, 48)
    assert tensor.dtype == torch.uint8


def test_nothing_is_cut_off_in_scoring() -> None:
    wide = Image.new("RGB", (90, 30), "black")
    wide.paste("white", (30, 0, 60, 30))  # only the middle third is white
    squash = make_transform((30, 30), False)(wide)
    assert squash[:, :, 0].max() == 0
    assert squash[:, :, 15].min() == 255


def test_cutout_blanks_with_the_backbones_mean() -> None:
    options = TransformOptions(flip=0, train_resize="squash", cutout=1.0, cutout_size=0.25)
    image = make_transform((40, 40), True, options, (0.25, 0.5, 0.75))(Image.new("RGB", (40, 40), "white"))
    blanked = (image != 255).any(dim=0)
    assert blanked.sum() == 400
    assert image[:, blanked].unique(dim=1).squeeze().tolist() == [64, 128, 191]


def test_heic_is_read_with_the_extra(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    Image.new("RGB", (32, 24), "red").save(tmp_path / "a.heic")
    red, green, _ = load_image(tmp_path / "a.heic").getpixel((5, 5))
    assert red > 200 > 60 > green
    assert ".heic" in IMAGE_ENDINGS


def test_a_png_with_megabytes_of_text_is_read(tmp_path: Path) -> None:
    settings = PngInfo()
    settings.add_text("workflow", "node " * 1_000_000, zip=True)
    Image.new("RGB", (3, 3), "red").save(tmp_path / "a.png", pnginfo=settings)
    assert load_image(tmp_path / "a.png").getpixel((1, 1)) == (255, 0, 0)


@pytest.mark.parametrize(("orientation", "expected"), [(1, (800, 400)), (3, (800, 400)), (6, (400, 800))])
def test_the_size_is_that_of_the_upright_file_however_it_is_decoded(
    tmp_path: Path, orientation: int, expected: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (800, 400), "teal").save(path := tmp_path / "x.jpg", exif=exif)
    photo, size = load_sized(path, at_least=50)
    assert size == expected
    assert photo.width * expected[1] == photo.height * expected[0]
    assert min(photo.size) == 50
    in_memory, same = load_sized(EncodedImage("s3://bucket/x.jpg", path.read_bytes))
    assert (in_memory.size, same) == (expected, expected)


def test_an_image_that_is_not_on_a_disk_is_named_in_its_error() -> None:
    with pytest.raises(UserError, match=r"s3://bucket/x\.jpg: not an image"):
        load_image(EncodedImage("s3://bucket/x.jpg", lambda: b"no image"))

    def lost() -> bytes:
        raise OSError("connection reset")

    with pytest.raises(UserError, match=r"s3://bucket/x\.jpg: damaged image \(connection reset\)"):
        load_image(EncodedImage("s3://bucket/x.jpg", lost))


def test_photos_are_found_at_any_depth_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("b.JPG", "a/c.png", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_photos(tmp_path) == ["a/c.png", "b.JPG"]
    assert "1 files are left out: 1 .txt" in capfd.readouterr().err
    with pytest.raises(UserError, match="there is no such folder"):
        find_photos(tmp_path / "nothing")
