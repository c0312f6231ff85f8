"""KAP, knowledge-aware prompting: the LLM's description of each label, through the frozen text tower.

Legend: C labels, d width of the backbone's joint space.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.backbones.text_cache import cached_text_features
from sspa.stage2_training.model.options import KapOptions


def knowledge_prompts(knowledge: Knowledge, template: str) -> list[list[str]]:
    """The prompts of each label, one per description; the bare name if it has none."""
    return [
        [
            template.format(label=label.text, sentence=description).strip()
            for description in knowledge.descriptions[label.key] or ("",)
        ]
        for label in knowledge.labels
    ]


def mean_of_descriptions(features: Tensor, counts: Sequence[int]) -> Tensor:
    """Mean of the normalised features of each label's descriptions (reconstruction): (sum(counts), d) -> (C, d)."""
    normalised = F.normalize(features, dim=-1)
    return torch.stack([part.mean(dim=0) for part in normalised.split(list(counts))])


@torch.no_grad()
def knowledge_aware_features(backbone: Backbone, knowledge: Knowledge, options: KapOptions) -> tuple[Tensor, Tensor]:
    """T_ka (S, d) and, for each of its rows, the index of its label (S,).

    Independent of images and parameters, so computed once and cached under the knowledge hash. One row
    per label; one per description if `options.average` is "logits".
    """
    prompts = knowledge_prompts(knowledge, options.template)
    texts = [prompt for of_label in prompts for prompt in of_label]
    features = cached_text_features(backbone, texts, knowledge.content_hash)
    counts = [len(of_label) for of_label in prompts]
    rows = torch.arange(len(prompts), device=features.device)
    if options.average == "logits":
        return F.normalize(features, dim=-1), rows.repeat_interleave(torch.tensor(counts, device=rows.device))
    return mean_of_descriptions(features, counts), rows
