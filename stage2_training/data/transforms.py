"""From an RGB image to pixels of a backbone's size; the backbone normalises them, on its device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TransformOptions:
    """How images are resized, and how training augments them.

    Attributes:
        train_resize: "crop" (random resized crop) or "squash" (both sides to size, as in scoring).
        crop_scale: the range of the share of the area that a random crop keeps.
        flip: the probability of a horizontal flip.
        randaugment: the number of RandAugment operations; 0 for none.
        randaugment_magnitude: their magnitude, 0 to 30.
        cutout: the probability of blanking one square of the image.
        cutout_size: the square's share of the area.
    """

    train_resize: Literal["squash", "crop"] = "crop"
    crop_scale: tuple[float, float] = (0.6, 1.0)
    flip: float = 0.5
    randaugment: int = 0
    randaugment_magnitude: int = 9
    cutout: float = 0.0
    cutout_size: float = 0.1


@dataclass(frozen=True)
class ImageTransform:
    """A callable from an image to a (3, H, W) uint8 tensor.

    `size` is (H, W). `decode_at_least` is the longest short side, in pixels, that it benefits from; `varies` says
    whether it draws from torch's default generator.
    """

    steps: Callable[[Image.Image], "Tensor"]
    size: tuple[int, int]
    decode_at_least: int
    varies: bool

    def __call__(self, image: Image.Image) -> "Tensor":
        return self.steps(image)


def make_transform(
    size: tuple[int, int], train: bool, options: TransformOptions | None = None, blank: tuple[float, ...] = (0.5,) * 3
) -> ImageTransform:
    """The torchvision v2 pipeline for one backbone.

    Args:
        size: (H, W) in pixels.
        train: augment the image (randomness comes from torch's generator: seed it per sample).
        options: see TransformOptions.
        blank: the colour of what cutout blanks, from 0 to 1 per channel: the backbone's mean.
    """
    from torchvision.transforms import v2

    options = options or TransformOptions()
    steps: list[Callable[..., object]] = []
    least = float(max(size))
    bicubic = v2.InterpolationMode.BICUBIC  # what CLIP and the EfficientNets were trained with
    if train and options.train_resize == "crop":
        steps.append(v2.RandomResizedCrop(size, scale=options.crop_scale, interpolation=bicubic))
        least /= options.crop_scale[0] ** 0.5
    else:
        # Nothing is cropped, so that the region grid covers the whole image.
        steps.append(v2.Resize(size, interpolation=bicubic))
    if train:
        if options.flip:
            steps.append(v2.RandomHorizontalFlip(options.flip))
        if options.randaugment:
            steps.append(v2.RandAugment(options.randaugment, options.randaugment_magnitude))
    steps.append(v2.PILToTensor())
    if train and options.cutout:
        share = options.cutout_size
        colour = [round(255 * value) for value in blank]
        steps.append(v2.RandomErasing(options.cutout, scale=(share, share), ratio=(1.0, 1.0), value=colour))
    return ImageTransform(v2.Compose(steps), size, int(least) + 1, varies=train)
