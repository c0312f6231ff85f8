"""Compares an exported file with the model: probabilities, and speed.

Legend: B images, C labels.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sspa.shared.errors import UserError
from sspa.stage2_training.export.targets import Runner
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.prediction.image_paths import find_images
from sspa.stage2_training.runs.inputs import dataset_of

_MOST_IMAGES = 32
# Three batch sizes show that the number of images is not fixed.
_BATCHES = (1, 2, 5)
_ROUNDS, _LONGEST_S = 15, 20.0


@dataclass(frozen=True)
class CheckImages:
    """Prepared images (B, 3, H, W), and their origin in words."""

    images: Tensor
    source: str


def images_to_check(tagger: Tagger, given: Sequence[str]) -> CheckImages:
    """The given images, else the run's own test or val images or, if those are gone, random tensors.

    Raises:
        UserError: one of the given images cannot be read.
    """
    if given:
        paths = find_images(given)[:_MOST_IMAGES]
        return CheckImages(torch.stack([tagger.prepare(path) for path in paths]), f"{len(paths)} given images")
    try:
        dataset = dataset_of(tagger.folder)
        split = dataset.splits[name := dataset.measured]
        chosen = np.linspace(0, len(split) - 1, min(_MOST_IMAGES, len(split))).astype(int)
        images = torch.stack([tagger.prepare(split.paths[index]) for index in chosen])
        return CheckImages(images, f"{len(chosen)} {name} images of {dataset.name}")
    except UserError as error:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(8, 3, *tagger.recognizer.backbone.image_size, generator=generator)
        return CheckImages(images, f"8 random tensors, since the run's images cannot be read ({error})")


def largest_difference(tagger: Tagger, exported: Runner, images: Tensor) -> float:
    """The largest difference between a probability of the model and of the exported file; nan if either is nan."""
    differences = [np.abs(exported(part) - tagger.probabilities(part)).max() for part in _batches(images)]
    return float(np.max(differences))


def seconds_a_batch(runners: Mapping[str, Runner], images: Tensor) -> dict[str, float]:
    """Median seconds of each runner for `images`, measured in turn, so that a busy machine affects all equally."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for run in runners.values():  # Untimed: initialisation.
        run(images)
    started = time.perf_counter()
    for done in range(_ROUNDS):
        if done >= 3 and time.perf_counter() - started > _LONGEST_S:
            break
        for name, run in runners.items():
            before = time.perf_counter()
            run(images)
            times[name].append(time.perf_counter() - before)
    return {name: float(np.median(seconds)) for name, seconds in times.items()}


def _batches(images: Tensor) -> Iterator[Tensor]:
    sizes, start = iter(_BATCHES), 0
    while start < len(images):
        size = next(sizes, 8)
        yield images[start : start + size]
        start += size
