"""What the page of `sspa-train demo` needs from a run: an image's labels, and the reasons for one of them.

Legend: C labels.
"""

import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sspa.shared.errors import UserError
from sspa.shared.knowledge import Knowledge
from sspa.shared.label_sets import Label, parse_label_set
from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.pages.overlay import over_image, small

# Labels that a visitor typed, each with a description or "".
Typed = dict[Label, str]

MOST_TYPED = 20
_LONGEST_DESCRIPTION = 500
_SHOWN_SIDE = 640


@dataclass(frozen=True)
class Limits:
    """Upper limits for an uploaded image; a megabyte is 2^20 bytes, as in Gradio."""

    megabytes: float
    megapixels: float

    @property
    def bytes(self) -> int:
        """The largest file, in bytes."""
        return int(self.megabytes * 2**20)


@dataclass(frozen=True)
class Scored:
    """One image as displayed, its labels, their probabilities (C,), and their maps (C, rows, columns), or None
    if the head has no regions."""

    image: Image.Image
    labels: tuple[Label, ...]
    probabilities: NDArray[np.float32]
    maps: NDArray[np.float32] | None

    def map_over_image(self, index: int) -> Image.Image | None:
        """Where a label was seen; None if the head has no regions."""
        return None if self.maps is None else over_image(self.image, self.maps[index])


class Scorer:
    """A Tagger shared by several visitors, each with their own labels in addition to the tagger's."""

    def __init__(self, tagger: Tagger, limits: Limits) -> None:
        self.tagger, self.limits = tagger, limits
        self.own = tagger.knowledge
        # Binding labels changes the model, so one visitor is served at a time.
        self._turn = threading.Lock()

    @property
    def takes_new_labels(self) -> bool:
        """Whether the run's head accepts labels that it was not trained on."""
        return self.tagger.recognizer.head.open_vocabulary

    def score(self, path: Path, typed: Typed) -> Scored:
        """Score one uploaded image with the tagger's labels and the typed ones, all together.

        Raises:
            UserError: it is too large or unreadable, or a typed label does not fit the text tower.
        """
        try:
            check_size(path, self.limits)
            shown = small(load_image(path, _SHOWN_SIDE), _SHOWN_SIDE)
            image = self.tagger.prepare(path)[None]
        except UserError as error:
            # Visitors know the file by its name, not by its path on the server.
            raise UserError(str(error).replace(str(path), path.name)) from error
        with self._turn:
            knowledge = self._bind(typed)
            probabilities, maps = self.tagger.maps(image)
        return Scored(shown, knowledge.labels, probabilities[0], None if maps is None else maps[0])

    def by_name_only(self, path: Path, typed: Typed) -> NDArray[np.float32] | None:
        """The probabilities (C,) without any description; None if the head uses no texts."""
        with self._turn:
            self._bind(typed)
            probabilities = self.tagger.by_name_only(self.tagger.prepare(path)[None])
        return None if probabilities is None else probabilities[0]

    def descriptions(self, key: str, typed: Typed) -> tuple[str, ...]:
        """The descriptions of a label, typed or the tagger's own."""
        of_typed = {label.key: (description,) for label, description in typed.items()}
        kept = of_typed.get(key) or self.own.descriptions[key]
        return tuple(description for description in kept if description)

    def _bind(self, typed: Typed) -> Knowledge:
        wanted = self.own.with_labels(typed) if typed else self.own
        bound = self.tagger.knowledge
        # The hash does not depend on the order of labels, but probabilities do.
        if (wanted.labels, wanted.content_hash) != (bound.labels, bound.content_hash):
            self.tagger.bind(wanted)
        return wanted


def with_typed(typed: Typed, name: str, description: str) -> Typed:
    """The typed labels plus one more.

    Raises:
        UserError: the name is empty or invalid, the description is too long, or there are too many labels.
    """
    if not name.strip():
        raise UserError("type a label first, for example: red umbrella")
    if len(typed) >= MOST_TYPED:
        raise UserError(f"{MOST_TYPED} typed labels are the most; remove them to type others")
    (label,) = parse_label_set(" ".join(name.split()).lstrip("#").encode(), "typed", "typed label").labels
    description = " ".join(description.split())
    if len(description) > _LONGEST_DESCRIPTION:
        raise UserError(f"the description has {len(description):,} characters; {_LONGEST_DESCRIPTION} is the limit")
    return {**typed, label: description}


def check_size(path: Path, limits: Limits) -> None:
    """Check an image's file size and header against the limits, before anything is decoded.

    Raises:
        UserError: it is too large, or was deleted to make room for others. A file that is not an image passes: reading
            it gives a better message.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise UserError(f"{path}: is no longer here, since others uploaded many; upload it again") from error
    if size > limits.bytes:
        raise UserError(f"{path}: the file has {size / 2**20:.1f} MB; {limits.megabytes:g} MB is the limit")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                pixels = opened.width * opened.height
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return
    if pixels > limits.megapixels * 1e6:
        raise UserError(f"{path}: {pixels / 1e6:.1f} megapixels; {limits.megapixels:g} is the limit, scale it down")
