"""Protocols: the named, frozen rules of a measurement, whose name and hash every result carries."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

Difficult = Literal["ignore", "negative", "positive"]
Unlabelled = Literal["keep", "drop"]
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
        based_on: of a protocol of one's own, the built-in one whose rules it overrides; see `own_protocol.py`.
    """

    name: str
    dataset: str
    splits: str
    average_precision: APForm = "non-interpolated"
    threshold: float = 0.5
    top_k: int = 3
    difficult: Difficult = "ignore"
    unlabelled_images: Unlabelled = "keep"
    unknowns: Literal["mask"] = "mask"
    headline: tuple[str, ...] = ("mAP",)
    source: str = ""
    based_on: str = ""

    @cached_property
    def hash(self) -> str:
        """Twelve hex digits over every field: results are comparable only if these agree."""
        rules = asdict(self)
        if not self.based_on:  # the hashes of the built-in ones are in results from before there were others
            del rules["based_on"]
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def built_in(self) -> str:
        """The name of the built-in protocol that this one is, or starts from."""
        return self.based_on or self.name

    def marks_like(self, other: "Protocol") -> bool:
        """Whether both keep the same images of a data set and give them the same labels."""

        def reading(rules: Protocol) -> tuple[str, ...]:
            return rules.difficult, rules.unlabelled_images, rules.unknowns

        return self.dataset in ("", other.dataset) and reading(self) == reading(other)

    def __str__(self) -> str:
        return f"{self.name} ({self.hash})"
