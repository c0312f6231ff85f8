"""Tip-Adapter: zero-shot, corrected by the training images that an image is similar to.

Legend: B images, N cached training images, C labels, d width of the backbone's joint space.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.baselines.options import TipAdapterOptions, ZeroShotOptions
from sspa.stage2_training.model.baselines.zero_shot import ZeroShot
from sspa.stage2_training.model.contract import LabelFeatures, Prediction


class TipAdapter(ZeroShot):
    """logit = scale * (cos(x0, T) + alpha / 100 * sum over the cache of exp(-beta (1 - cos(x0, key))) value) + bias.

    100 is CLIP's own scale, which alpha is relative to in the original. There every image has one class, and every
    class as many images; here a label's value is 1 / (its number of cached positives), so that alpha means the same
    for rare and frequent labels (reconstruction).
    """

    open_vocabulary = False
    keys: Tensor
    values: Tensor

    def __init__(self, options: TipAdapterOptions, backbone_width: int) -> None:
        super().__init__(ZeroShotOptions(kap=options.kap, bias=options.bias), backbone_width)
        self.alpha, self.beta = options.alpha, options.beta
        self.keys = nn.Parameter(torch.zeros(options.images, backbone_width))

    @property
    def sample_images(self) -> int:
        return len(self.keys)

    def bind(self, backbone: Backbone, knowledge: Knowledge) -> None:
        super().bind(backbone, knowledge)
        self.register_buffer("values", torch.zeros(len(self.keys), len(knowledge.labels), device=self.keys.device))

    @torch.no_grad()
    def initialise(self, sample: ImageFeatures, targets: Tensor, labels: LabelFeatures) -> None:
        """Cache the first `images` of the sample; unused rows stay zero, which counts for nothing."""
        count = min(len(targets), len(self.keys))
        self.keys[:count] = F.normalize(sample.pooled[:count].float(), dim=-1)
        present = (targets[:count] == 1).float()
        self.values[:count] = present / present.sum(dim=0).clamp(min=1)

    def forward(self, features: ImageFeatures, labels: LabelFeatures, explain: bool = False) -> Prediction:
        x0 = F.normalize(features.pooled, dim=-1)
        affinity = (self.beta * (x0 @ F.normalize(self.keys, dim=-1).mT - 1)).exp()  # (B, N)
        cached = affinity @ self.values.to(affinity.dtype)
        return Prediction({"global": self.to_logit(x0 @ labels["T"].mT + self.alpha / 100 * cached)})
