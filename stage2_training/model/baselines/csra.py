"""CSRA, class-specific residual attention.

Legend: B images, M regions, C labels, H heads, d width of the backbone's joint space.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.baselines.feature_scale import FeatureScale
from sspa.stage2_training.model.baselines.options import CsraOptions
from sspa.stage2_training.model.contract import Evidence, Head, LabelFeatures, Prediction

# The heads' temperatures, by the number of heads (section 3.4); infinity is the maximum over regions.
_TEMPERATURES = {
    1: (1.0,),
    2: (1.0, torch.inf),
    4: (1.0, 2.0, 4.0, torch.inf),
    6: (1.0, 2.0, 3.0, 4.0, 5.0, torch.inf),
    8: (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, torch.inf),
}


def attended_scores(scores: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Region scores (B, M, C) -> their attention-weighted sum (B, C), and the attention (B, M, C)."""
    if temperature == torch.inf:
        attention = F.one_hot(scores.argmax(dim=1), scores.shape[1]).mT.to(scores.dtype)
    else:
        attention = (temperature * scores).softmax(dim=1)
    return (attention * scores).sum(dim=1), attention


class CSRA(Head):
    """Per head, the mean of the region scores + lambda * their attention-weighted sum; summed over heads.

    Classifier rows have unit length, as in the authors' code. The bias is ours: features are centred here.
    """

    def __init__(self, options: CsraOptions, backbone_width: int) -> None:
        super().__init__()
        self.options, self.width = options, backbone_width
        self.scale = FeatureScale(backbone_width)

    def bind(self, backbone: Backbone, knowledge: Knowledge) -> None:
        labels, device = len(knowledge.labels), self.scale.mean.device
        weight = torch.empty(self.options.heads, labels, self.width, device=device)
        self.classifiers = nn.Parameter(nn.init.normal_(weight, std=self.width**-0.5))
        self.bias = nn.Parameter(torch.zeros(labels, device=device))

    def initialise(self, sample: ImageFeatures, targets: Tensor, labels: LabelFeatures) -> None:
        self.scale.start_from(sample.regions)

    def logit_biases(self) -> dict[str, nn.Parameter]:
        return {"region": self.bias}

    def forward(self, features: ImageFeatures, labels: LabelFeatures, explain: bool = False) -> Prediction:
        regions = self.scale(features.regions)  # (B, M, d)
        logits, shown, weights = self.bias, [], []
        for rows, temperature in zip(self.classifiers, _TEMPERATURES[self.options.heads], strict=True):
            scores = regions @ F.normalize(rows, dim=-1).mT  # (B, M, C)
            attended, attention = attended_scores(scores, temperature)
            logits = logits + scores.mean(dim=1) + self.options.weight * attended
            shown.append(scores)
            weights.append((1 / scores.shape[1] + self.options.weight * attention) / (1 + self.options.weight))
        if not explain:
            return Prediction({"region": logits})
        evidence = Evidence(
            region_logits=(1 + self.options.weight) * torch.stack(shown).sum(dim=0) + self.bias,
            region_weights=torch.stack(weights).mean(dim=0),
        )
        return Prediction({"region": logits}, evidence)
