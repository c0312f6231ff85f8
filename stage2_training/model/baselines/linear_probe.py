"""Linear probe: one linear map from the pooled feature to the labels.

Legend: B images, C labels, d width of the backbone's joint space.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.contract import Head, LabelFeatures, Prediction
from sspa.stage2_training.model.options import Options


class LinearProbeOptions(Options):
    """Logistic regression on frozen features (Radford et al., CLIP, ICML 2021, section 3.2)."""

    head: Literal["linear"] = "linear"


class LinearProbe(Head):
    """logits = (x0 - mean of training) / deviation of training, times W, plus b. Reads no label text."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, options: LinearProbeOptions, backbone_width: int) -> None:
        super().__init__()
        self.options, self.backbone_width = options, backbone_width
        self.register_buffer("mean", torch.zeros(backbone_width))
        self.register_buffer("deviation", torch.ones(()))

    def bind(self, backbone: Backbone, knowledge: Knowledge) -> None:
        self.linear = nn.Linear(self.backbone_width, len(knowledge.labels)).to(self.mean.device)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def initialise(self, sample: ImageFeatures) -> None:
        self.mean = sample.pooled.float().mean(dim=0)
        # One deviation for all channels: it sets the learning rate's unit and changes no direction.
        self.deviation = (sample.pooled.float() - self.mean).std()

    def forward(self, features: ImageFeatures, labels: LabelFeatures, explain: bool = False) -> Prediction:
        return Prediction({"global": self.linear((features.pooled - self.mean) / self.deviation)})
