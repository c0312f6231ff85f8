"""ML-Decoder: a decoder layer without self-attention, from fixed queries to groups of labels.

Legend: B images, M regions, C labels, G groups, w width of the decoder, d width of the joint space.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.baselines.feature_scale import FeatureScale
from sspa.stage2_training.model.baselines.options import MlDecoderOptions
from sspa.stage2_training.model.contract import Head, LabelFeatures, Prediction


class MLDecoder(Head):
    """Regions -> w, queries attend to them, a feed-forward network, and a group-wise linear layer."""

    def __init__(self, options: MlDecoderOptions, backbone_width: int) -> None:
        super().__init__()
        self.options = options
        width, dropout = options.width, options.dropout
        self.scale = FeatureScale(backbone_width)
        self.embed = nn.Linear(backbone_width, width)
        self.attention = nn.MultiheadAttention(width, options.heads, dropout=dropout, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.feed_forward = nn.Sequential(
            nn.Linear(width, options.hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(options.hidden, width)
        )
        self.dropout = nn.Dropout(dropout)

    def bind(self, backbone: Backbone, knowledge: Knowledge) -> None:
        self.labels, device = len(knowledge.labels), self.embed.weight.device
        groups = min(self.options.groups, self.labels)
        width = self.options.width
        # Queries are drawn once and not trained: section 3.2 reports that training them changes nothing.
        self.register_buffer("queries", torch.randn(groups, width, device=device))
        weight = torch.empty(groups, width, math.ceil(self.labels / groups), device=device)
        self.group_weights = nn.Parameter(nn.init.xavier_normal_(weight))
        self.bias = nn.Parameter(torch.zeros(self.labels, device=device))

    def initialise(self, sample: ImageFeatures, targets: Tensor, labels: LabelFeatures) -> None:
        self.scale.start_from(sample.regions)

    def logit_biases(self) -> dict[str, nn.Parameter]:
        return {"region": self.bias}

    def forward(self, features: ImageFeatures, labels: LabelFeatures, explain: bool = False) -> Prediction:
        memory = F.relu(self.embed(self.scale(features.regions)))  # (B, M, w)
        queries = self.norms[0](self.queries + self.dropout(self.queries)).expand(memory.shape[0], -1, -1)  # (B, G, w)
        attended, _ = self.attention(queries, memory, memory, need_weights=False)
        states = self.norms[1](queries + self.dropout(attended))
        states = self.norms[2](states + self.dropout(self.feed_forward(states)))
        logits = torch.einsum("bgw,gwk->bgk", states, self.group_weights).flatten(1)  # (B, G * ceil(C / G))
        return Prediction({"region": logits[:, : self.labels] + self.bias})
