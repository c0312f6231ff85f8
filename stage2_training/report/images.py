"""The images of the report: their selection, and each with its labels and the region map of one of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.pages.overlay import image_and_map

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Cell:
    """One image and one label, by their indices in the split."""

    image: int
    label: int


@dataclass(frozen=True)
class Card:
    """One image on the page; images are data URIs, labels are (text, percent)."""

    name: str
    image: str
    region_map: str | None
    label: str
    percent: float
    predicted: list[tuple[str, float]]
    true: list[str]
    unknown: list[str]


def drawn_images(probabilities: Floats, count: int = 12, seed: int = 0) -> list[Cell]:
    """`count` random images of the split, each with its most probable label."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    drawn = sorted(generator.permutation(len(probabilities))[:count])
    return [Cell(int(index), int(probabilities[index].argmax())) for index in drawn]


def confident_errors(
    probabilities: Floats, targets: NDArray[np.int8], threshold: float, missed: bool, count: int = 10
) -> list[Cell]:
    """The cells where the model was most confidently wrong, the worst first.

    Args:
        missed: False negatives with the lowest probabilities if true, else false positives with the highest; only
            cells that the threshold decides wrongly.
    """
    if missed:
        wrong, doubt = (targets == 1) & (probabilities < threshold), probabilities
    else:
        wrong, doubt = (targets == 0) & (probabilities >= threshold), -probabilities
    order = np.argsort(np.where(wrong, doubt, np.inf), axis=None, kind="stable")[: min(count, wrong.sum())]
    return [Cell(int(index // targets.shape[1]), int(index % targets.shape[1])) for index in order]


def make_cards(
    tagger: Tagger, split: Split, probabilities: Floats, cells: Sequence[Cell], threshold: float
) -> list[Card]:
    """A card for each cell, with the region map of its label if the head has regions.

    Raises:
        UserError: an image cannot be read.
    """
    names = [label.text for label in tagger.labels]
    cards = []
    for cell in cells:
        path, row, truth = split.paths[cell.image], probabilities[cell.image], split.targets[cell.image]
        image, region_map = image_and_map(tagger, path, cell.label)
        order = [index for index in np.argsort(-row) if row[index] >= threshold]
        cards.append(
            Card(
                name=split.ids[cell.image],
                image=image,
                region_map=region_map,
                label=names[cell.label],
                percent=100 * float(row[cell.label]),
                predicted=[(names[index], 100 * float(row[index])) for index in order],
                true=_named(names, np.flatnonzero(truth == 1)),
                unknown=_named(names, np.flatnonzero(truth == -1)),
            )
        )
    return cards


def _named(names: Sequence[str], indices: Iterable[int]) -> list[str]:
    return [names[index] for index in indices]
