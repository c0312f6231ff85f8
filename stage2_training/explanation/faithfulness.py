"""The faithfulness of region maps: the pointing game, deletion and insertion.

Legend: B images, M regions, C labels, K steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from sspa.shared.errors import UserError
from sspa.shared.terminal import progress
from sspa.stage2_training.backbones.contract import ImageFeatures
from sspa.stage2_training.data.dataset import Dataset
from sspa.stage2_training.explanation.boxes import Box, voc_boxes
from sspa.stage2_training.features.inputs import Inputs
from sspa.stage2_training.inference.region_maps import region_maps
from sspa.stage2_training.inference.tagger import Tagger

Floats = NDArray[np.floating[Any]]

# The shares of the image that are removed (deletion) or revealed (insertion).
STEPS = np.linspace(0, 1, 9)


@dataclass(frozen=True)
class Faithfulness:
    """The metrics of one kind of map, each between 0 and 1; None if a metric does not apply to it.

    Attributes:
        pointing: the share of (image, true label) pairs for which the centre of the map's highest region is in a
            box of the label; higher is better.
        deletion: mean probability of the label while the image is blurred region by region, the map's highest
            first; lower is better.
        insertion: the same while a blurred image is sharpened region by region; higher is better.
    """

    pointing: float | None
    deletion: float | None
    insertion: float | None


@dataclass(frozen=True)
class FaithfulnessResult:
    """`by_map`: the metrics of each kind of map. The numbers of pairs in the pointing game and in deletion."""

    by_map: Mapping[str, Faithfulness]
    pointing_pairs: int
    deletion_pairs: int


def measure_faithfulness(
    tagger: Tagger, dataset: Dataset, split_name: str, deletion_images: int, seed: int = 0
) -> FaithfulnessResult:
    """The metrics of the model's region maps, compared with simpler maps.

    "region map" is the one that reports show. "max aggregator": its highest region, the rest in random order.
    "plain similarity": the backbone's own cosine of each region with "a photo of a LABEL", untrained.
    "DSF attention": where the label's text looked. "chance": random regions (exact for the pointing game).

    Args:
        dataset: with the tagger's labels.
        deletion_images: the number of random images, with one true label each, for deletion and insertion: each is
            scored about seventy times.

    Raises:
        UserError: the head has no regions, an annotation is missing, or an image cannot be read.
    """
    inputs = Inputs(tagger.folder.config(), dataset, tagger.recognizer.backbone, tagger.device)
    split = inputs.split(split_name)
    keys = dataset.labels.keys
    plain_text = tagger.recognizer.backbone.encode_text([f"a photo of a {label.text}." for label in tagger.labels])
    generator = np.random.Generator(np.random.Philox(key=seed))
    drawn = set(generator.permutation(len(split))[:deletion_images].tolist())
    hits: dict[str, list[float]] = {}
    areas: dict[str, list[tuple[float, float]]] = {}
    with progress("explaining", len(split), "images") as bar:
        for batch, _, indices in inputs.scoring(split)[0].epoch(0):
            of_batch = _maps(tagger, batch, plain_text)
            for place, index in enumerate(indices.tolist()):
                bar.advance()
                true = np.flatnonzero(split.targets[index] == 1)
                if not len(true):
                    continue
                boxes, size = voc_boxes(split.paths[index])
                maps = {name: values[place] for name, values in of_batch.items()}
                for label in true:
                    inside = centres_inside(boxes[keys[label]], size, tagger.grid)
                    for name, values in maps.items():
                        hits.setdefault(name, []).append(float(inside[values[:, label].argmax()]))
                    hits.setdefault("chance", []).append(float(inside.mean()))
                if index in drawn:
                    label = int(generator.choice(true))
                    image = tagger.prepare(split.paths[index])
                    orders = _orders({name: values[:, label] for name, values in maps.items()}, generator)
                    for name, both in _areas(tagger, image, orders, label).items():
                        areas.setdefault(name, []).append(both)
    by_map = {}
    for name in dict.fromkeys([*hits, *areas]):
        deletion, insertion = np.mean(areas[name], axis=0).tolist() if name in areas else (None, None)
        by_map[name] = Faithfulness(float(np.mean(hits[name])) if name in hits else None, deletion, insertion)
    return FaithfulnessResult(by_map, len(hits["chance"]), len(areas.get("chance", [])))


def centres_inside(boxes: Sequence[Box], size: tuple[int, int], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """(M,): which regions have their centre in a box; `size` is (width, height), `grid` (rows, columns)."""
    rows, columns = grid
    y, x = np.divmod(np.arange(rows * columns), columns)
    across, down = (x + 0.5) * size[0] / columns, (y + 0.5) * size[1] / rows
    inside = np.zeros(rows * columns, dtype=bool)
    for left, top, right, bottom in boxes:
        inside |= (left <= across) & (across <= right) & (top <= down) & (down <= bottom)
    return inside


def area_under(probabilities: Floats) -> float:
    """Mean height of a curve over evenly spaced steps (trapezoidal rule)."""
    return float((probabilities[1:] + probabilities[:-1]).mean() / 2)


def mixed_images(sharp: Tensor, blurred: Tensor, order: NDArray[np.int64], grid: tuple[int, int]) -> Tensor:
    """(K, 3, H, W): the sharp image with the first regions of `order` blurred, more of them at each step."""
    regions = len(order)
    rank = torch.empty(regions, dtype=torch.long)
    rank[torch.from_numpy(order.copy())] = torch.arange(regions)
    cells = rank.reshape(1, 1, *grid).float()
    ranks = F.interpolate(cells, size=sharp.shape[-2:], mode="nearest-exact")[0]  # (1, H, W)
    gone = torch.from_numpy(np.rint(STEPS * regions)).float()  # (K,)
    return torch.where(ranks < gone[:, None, None, None], blurred, sharp)


@torch.inference_mode()
def _maps(tagger: Tagger, inputs: Tensor | ImageFeatures, plain_text: Tensor) -> dict[str, Floats]:
    """(B, M, C) of each kind."""
    backbone = tagger.recognizer.backbone
    features = backbone.encode_image(inputs) if isinstance(inputs, Tensor) else inputs
    evidence = tagger.recognizer(features, tagger.label_features, explain=True).evidence
    if evidence is None:
        raise UserError(f"{tagger.folder.path}: this run's head scores whole images; it has no region maps to test")
    similarity = F.normalize(features.regions, dim=-1) @ F.normalize(plain_text, dim=-1).mT
    maps = {"region map": region_maps(evidence), "plain similarity": similarity}
    if evidence.dsf_attention is not None:
        maps["DSF attention"] = evidence.dsf_attention.mT
    return {name: values.float().cpu().numpy() for name, values in maps.items()}


def _orders(maps: Mapping[str, Floats], generator: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """The regions from the most to the least important, (M,) for each kind of map."""
    orders = {name: np.argsort(-values, kind="stable") for name, values in maps.items()}
    chance = generator.permutation(len(orders["region map"]))
    first = orders["region map"][0]
    return {**orders, "max aggregator": np.append(first, chance[chance != first]), "chance": chance}


@torch.inference_mode()
def _areas(
    tagger: Tagger, sharp: Tensor, orders: Mapping[str, NDArray[np.int64]], label: int
) -> dict[str, tuple[float, float]]:
    """Deletion and insertion for one image and label in each order, in the plain view."""
    # Strong enough that only the image's colours remain, no region's content.
    side = max(sharp.shape[-2:])
    blurred = TF.gaussian_blur(sharp, kernel_size=[2 * (side // 8) + 1] * 2, sigma=[side / 16] * 2)

    def scored(images: Tensor) -> Floats:
        prediction = tagger.recognizer(images.to(tagger.device), tagger.label_features)
        return prediction.probabilities()["both"][:, label].cpu().numpy()

    # Every curve starts and ends with these two.
    whole, gone = scored(torch.stack([sharp, blurred]))
    areas = {}
    for name, order in orders.items():
        between = [
            mixed_images(before, after, order, tagger.grid)[1:-1]
            for before, after in ((sharp, blurred), (blurred, sharp))
        ]
        deletion, insertion = scored(torch.cat(between)).reshape(2, -1)
        areas[name] = (
            area_under(np.array([whole, *deletion, gone])),
            area_under(np.array([gone, *insertion, whole])),
        )
    return areas
