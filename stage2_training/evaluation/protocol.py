"""Protocols: the named, frozen rules of a measurement, whose name and hash every result carries."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

Difficult = Literal["ignore", "negative", "positive"]
APForm = Literal["non-interpolated", "interpolated", "11-point"]


@dataclass(frozen=True)
class Protocol:
    """The rules of one published way of evaluating a data set.

    Attributes:
        name: as printed with results, e.g. "voc2007-ignore-difficult".
        dataset: the adapter it belongs to, e.g. "voc2007"; "" if it applies to any data.
        splits: where train and test come from, in words.
        average_precision: which definition of AP the headline mAP uses.
        threshold: the probability from which a label counts as predicted.
        top_k: the number of labels per image in the "top-k" metrics.
        difficult: the state of a label whose only objects are marked difficult (VOC); unknown under "ignore".
        unlabelled_images: whether images without any label are kept.
        unknowns: the meaning of -1; "mask" leaves the cell out of every count.
        headline: the metrics usually quoted for this data set, in order.
        source: where these rules come from.
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
        """Twelve hex digits over every field: results are comparable only if these agree."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return f"{self.name} ({self.hash})"
