"""Which of a label's descriptions are telling: our extension of KAP; the paper has one description per label.

A language model asked several times writes some descriptions that could be of anything. The text tower that reads
them can find those out without a single image: a telling description is closer to its own label's name than to the
names of the others.

Legend: C labels, S descriptions of all labels, label by label, d width of the joint space.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def telling_scores(descriptions: Tensor, names: Tensor, counts: Sequence[int], temperature: float) -> Tensor:
    """How surely each description points to its own label: log-softmax over all labels' names, at its own.

    Args:
        descriptions: features (S, d) of the descriptions, in the order of the labels.
        names: features (C, d) of the labels' names.
        counts: the number of descriptions of each label, C numbers with the sum S.
        temperature: of the softmax over cosines; the lower, the more a single confusable name counts.

    Returns:
        (S,), at most 0. Features of any length will do: they are normalised.
    """
    cosines = F.normalize(descriptions.float(), dim=-1) @ F.normalize(names.float(), dim=-1).mT  # (S, C)
    own = torch.arange(len(counts), device=cosines.device).repeat_interleave(
        torch.tensor(list(counts), device=cosines.device)
    )
    return F.log_softmax(cosines / temperature, dim=-1).gather(1, own[:, None])[:, 0]


def most_telling(scores: Tensor, counts: Sequence[int], keep: int) -> Tensor:
    """Equal weights for the `keep` descriptions of each label with the highest scores, 0 for the others: (S,) -> (S,).

    A label with fewer keeps all of its own; of equal scores, the earlier description is kept.
    """
    weights = []
    for own in scores.split(list(counts)):
        kept = own.argsort(descending=True, stable=True)[:keep]
        weights.append(torch.zeros_like(own).index_fill(0, kept, 1 / len(kept)))
    return torch.cat(weights)


def telling_weights(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """Weights in proportion to the probability that a description points to its own label: (S,) -> (S,).

    They add up to 1 for each label.
    """
    return torch.cat([own.softmax(dim=0) for own in scores.split(list(counts))])
