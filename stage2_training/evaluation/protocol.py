"""What a number was measured under: a protocol is a named, frozen object, and a result carries its name and hash."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

Difficult = Literal["ignore", "negative", "positive"]
APForm = Literal["non-interpolated", "interpolated", "11-point"]


@dataclass(frozen=True)
class Protocol:
    """The rules one published way of evaluating a data set follows.

    Attributes:
        name: what a result prints, e.g. "voc2007-ignore-difficult".
        dataset: the adapter it belongs to, e.g. "voc2007"; "" for one that fits any data.
        splits: where train and test come from, in words.
        average_precision: which definition of AP the headline mAP uses.
        threshold: the probability from which a label counts as predicted.
        top_k: how many labels the "top-k" figures keep for each image.
        difficult: what a label is whose only objects are marked difficult (VOC); unknown under "ignore".
        unlabelled_images: whether images without a single label are kept.
        unknowns: what -1 does; "mask" leaves the cell out of every count.
        headline: the metrics the field quotes for this data set, in their order.
        source: whose way this is.
    """

    name: str
    dataset: str
    splits: str
    average_precision: APForm = "non-interpolated"
    threshold: float = 0.5
    top_k: int = 3
    difficult: Difficult = "ignore"
    unlabelled_images: Literal["keep", "drop"] = "keep"
    unknowns: Literal["mask"] = "mask"
    headline: tuple[str, ...] = ("mAP",)
    source: str = ""

    @cached_property
    def hash(self) -> str:
        """Twelve hex digits over every field: two results compare only where these agree."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return f"{self.name} ({self.hash})"
