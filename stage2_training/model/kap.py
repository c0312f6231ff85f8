"""KAP, knowledge-aware prompting: the LLM's descriptions of each label, through the frozen text tower.

Legend: C labels, S descriptions of all labels, R rows of T_ka, d width of the backbone's joint space.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.backbones.text_cache import cached_text_features
from sspa.stage2_training.model.contract import UsedDescription
from sspa.stage2_training.model.options import KapOptions
from sspa.stage2_training.model.telling import most_telling, telling_scores, telling_weights

_SENTENCE = "{sentence}"


@dataclass(frozen=True)
class KnowledgeFeatures:
    """T_ka and what it is made of.

    `t_ka` (R, d) has one row per label, or one per description that is used if logits are averaged;
    `label_of_row` and `weight_of_row` (R,) say whose row it is and its share in its label's logit.
    `descriptions` lists all of each label's, in the order of the labels; None if the template has no place for any.
    """

    t_ka: Tensor
    label_of_row: Tensor
    weight_of_row: Tensor
    descriptions: tuple[tuple[UsedDescription, ...], ...] | None

    @classmethod
    @torch.no_grad()
    def of(cls, backbone: Backbone, knowledge: Knowledge, options: KapOptions) -> Self:
        """The features of this knowledge.

        Independent of images and parameters, so computed once and cached under the knowledge hash.
        """
        prompts = knowledge_prompts(knowledge, options.template)
        counts = [len(of_label) for of_label in prompts]
        texts = [prompt for of_label in prompts for prompt in of_label]
        features = F.normalize(cached_text_features(backbone, texts, knowledge.content_hash), dim=-1)  # (S, d)
        scores = None
        if options.select != "all" and max(counts, default=0) > 1 and _SENTENCE in options.template:
            scores = _scores(backbone, knowledge, counts, options)
        weights = description_weights(_certain_by_hand(scores, knowledge), counts, options).to(features)
        labels = torch.arange(len(prompts), device=features.device)
        of_description = labels.repeat_interleave(torch.tensor(counts, device=features.device))
        used = _used(knowledge, weights, scores) if _SENTENCE in options.template else None
        if options.average == "logits":
            rows = weights > 0
            return cls(features[rows], of_description[rows], weights[rows], used)
        return cls(weighted_mean(features, weights, counts), labels, torch.ones_like(labels).to(features), used)


def knowledge_prompts(knowledge: Knowledge, template: str) -> list[list[str]]:
    """The prompts of each label, one per description; the bare name if it has none."""
    return [
        [template.format(label=label.text, sentence=description).strip() for description in of_label]
        for label, of_label in zip(knowledge.labels, _descriptions(knowledge), strict=True)
    ]


def description_weights(scores: Tensor | None, counts: list[int], options: KapOptions) -> Tensor:
    """Each description's share in its label's knowledge, (S,): the shares of a label add up to 1.

    Without scores, every label's first `options.keep` descriptions count the same.
    """
    if scores is None:
        scores = torch.zeros(sum(counts))
    if options.select == "weighted":
        return telling_weights(scores, counts)
    return most_telling(scores, counts, options.keep or max(counts, default=1))


def weighted_mean(features: Tensor, weights: Tensor, counts: list[int]) -> Tensor:
    """Each label's weighted mean over its descriptions: (S, d), (S,) -> (C, d)."""
    return torch.stack([part.sum(dim=0) for part in (features * weights[:, None]).split(counts)])


def _descriptions(knowledge: Knowledge) -> list[tuple[str, ...]]:
    return [knowledge.descriptions[label.key] or ("",) for label in knowledge.labels]


def _scores(backbone: Backbone, knowledge: Knowledge, counts: list[int], options: KapOptions) -> Tensor:
    """The descriptions alone are scored; whole prompts, which have the name in them, score alike (docs/results.md)."""
    texts = [description for of_label in _descriptions(knowledge) for description in of_label]
    names = [options.template.format(label=label.text, sentence="").strip() for label in knowledge.labels]
    features = cached_text_features(backbone, [*texts, *names], knowledge.content_hash)
    return telling_scores(features[: len(texts)], features[len(texts) :], counts, options.select_temperature)


def _certain_by_hand(scores: Tensor | None, knowledge: Knowledge) -> Tensor | None:
    """What a person wrote or corrected is never passed over for an answer of the model: it counts as certain."""
    if scores is None or not knowledge.by_hand:
        return scores
    by_hand = [
        (label.key, place) in knowledge.by_hand
        for label, of_label in zip(knowledge.labels, _descriptions(knowledge), strict=True)
        for place in range(len(of_label))
    ]
    return scores.masked_fill(torch.tensor(by_hand, device=scores.device), 0.0)


def _used(knowledge: Knowledge, weights: Tensor, scores: Tensor | None) -> tuple[tuple[UsedDescription, ...], ...]:
    shares = iter(weights.tolist())
    known = iter([None] * len(weights) if scores is None else scores.exp().tolist())
    return tuple(
        tuple(UsedDescription(description, next(shares), next(known)) for description in of_label)
        for of_label in _descriptions(knowledge)
    )
