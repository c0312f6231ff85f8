"""One scene: a background, one to five labelled drawings, and distractors that show none of the labels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sspa.stage2_training.data.scenes.dice import Dice
from sspa.stage2_training.data.scenes.drawings import Drawing, drawings_of, rasterise

if TYPE_CHECKING:
    from PIL import Image

SIDE = 256
# Labels that often occur together in photos; half of the scenes use labels of one row only, for realistic correlations.
_THEMES = (
    ("sofa", "chair", "diningtable", "tvmonitor", "pottedplant", "bottle", "cat", "dog", "person"),
    ("car", "bus", "bicycle", "motorbike", "train", "person", "dog"),
    ("cow", "sheep", "horse", "dog", "bird", "person"),
    ("boat", "bird", "aeroplane", "person"),
)
# How many labelled drawings: one to five, most often two.
_COUNTS = (1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5)


@dataclass(frozen=True)
class Placed:
    """A drawing with its placement: centre and side in pixels, rotation in degrees, and whether it is mirrored."""

    drawing: Drawing
    x: int
    y: int
    side: int
    degrees: int
    mirrored: bool


@dataclass(frozen=True)
class Scene:
    """The complete random plan of one image."""

    name: str
    placed: tuple[Placed, ...]

    @property
    def labels(self) -> frozenset[str]:
        """The visible labels."""
        return frozenset(label for item in self.placed for label in item.drawing.labels)


def plan_scene(split: str, number: int, seed: int) -> Scene:
    """The plan of scene `number` of a split: a function of its arguments, in integer arithmetic only."""
    name = f"{split}-{number:05}"
    dice = Dice(f"scene {seed} {name}")
    labelled, distractors = drawings_of(split)
    everything = sorted({label for drawing in labelled for label in drawing.labels})
    allowed = dice.pick(_THEMES) if dice.roll(2) else tuple(everything)
    chosen = []
    for _ in range(dice.pick(_COUNTS)):
        label = dice.pick(allowed)
        chosen.append(dice.pick([drawing for drawing in labelled if label in drawing.labels]))
    chosen += [dice.pick(distractors) for _ in range(dice.roll(4))]
    placed: list[Placed] = []
    for drawing in dice.shuffled(chosen):
        placed.append(_place(dice, drawing, placed, crowd=len(chosen)))
    return Scene(name, tuple(placed))


def draw_scene(scene: Scene, seed: int) -> "Image.Image":
    """The image of a scene, SIDE pixels square, RGB."""
    from PIL import Image, ImageFilter, ImageOps

    dice = Dice(f"paint {seed} {scene.name}")
    image = _background(dice)
    for item in scene.placed:
        drawing = rasterise(item.drawing.code)
        longest = max(drawing.size)
        size = (max(1, drawing.width * item.side // longest), max(1, drawing.height * item.side // longest))
        drawing = drawing.resize(size, Image.Resampling.BICUBIC)
        if item.mirrored:
            drawing = ImageOps.mirror(drawing)
        drawing = drawing.rotate(item.degrees, Image.Resampling.BICUBIC, expand=True)
        image.paste(drawing, (item.x - drawing.width // 2, item.y - drawing.height // 2), drawing)
    if dice.roll(4) == 0:
        image = image.filter(ImageFilter.BoxBlur(1))
    return image


def _place(dice: Dice, drawing: Drawing, others: list[Placed], crowd: int) -> Placed:
    """A random placement where the drawing may overlap others but hides none: the best of up to twelve tries."""
    # Crowded scenes have smaller drawings.
    largest = SIDE * 60 // 100 if crowd <= 2 else SIDE * 45 // 100 if crowd <= 4 else SIDE * 36 // 100
    side = dice.between(SIDE * 20 // 100, largest)
    degrees = dice.between(-25, 25)
    mirrored = dice.roll(2) == 1
    best, best_room = (SIDE // 2, SIDE // 2), -(10**9)
    for _ in range(12):
        # Up to a fifth of the side may lie outside the image.
        x, y = (dice.between(side * 3 // 10, SIDE - side * 3 // 10) for _ in range(2))
        # Squared distances, scaled so that two squares that just touch have 100.
        room = min(
            (10_000 * 4 * ((x - o.x) ** 2 + (y - o.y) ** 2) // (side + o.side) ** 2 for o in others),
            default=10_000,
        )
        if room > best_room:
            best, best_room = (x, y), room
        if room >= 65**2:
            break
    return Placed(drawing, *best, side, degrees, mirrored)


def _background(dice: Dice) -> "Image.Image":
    """One of five kinds: plain, gradient, blobs of colour, sky over ground, tiles."""
    from PIL import Image

    def colour() -> tuple[int, int, int]:
        return dice.between(60, 255), dice.between(60, 255), dice.between(60, 255)

    kind = dice.roll(5)
    if kind == 0:
        return Image.new("RGB", (SIDE, SIDE), colour())
    if kind == 3:
        image, ground = Image.new("RGB", (SIDE, SIDE), colour()), colour()
        image.paste(ground, (0, dice.between(SIDE * 3 // 10, SIDE * 7 // 10), SIDE, SIDE))
        return image
    # A few random pixels, enlarged: smoothly for gradients and blobs, with sharp edges for tiles.
    columns, rows = (dice.between(4, 9), dice.between(4, 9)) if kind == 2 else (2, 2)
    small = Image.new("RGB", (columns, rows))
    for x in range(columns):
        for y in range(rows):
            small.putpixel((x, y), colour())
    if kind == 4:
        times = dice.between(2, 10)
        tiles = Image.new("RGB", (2 * times, 2 * times))
        for left in range(times):
            for top in range(times):
                tiles.paste(small, (2 * left, 2 * top))
        return tiles.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
