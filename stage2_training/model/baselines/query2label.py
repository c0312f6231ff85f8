"""Query2Label: a transformer with one learnable query per label.

Legend: B images, M regions, C labels, w width of the transformer, d width of the joint space.
"""

import torch
from torch import Tensor, nn

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.baselines.feature_scale import FeatureScale
from sspa.stage2_training.model.baselines.options import Query2LabelOptions
from sspa.stage2_training.model.contract import Head, LabelFeatures, Prediction


class Query2Label(Head):
    """Regions with sine positions -> encoder; label queries -> decoder; one classifier row per label."""

    def __init__(self, options: Query2LabelOptions, backbone_width: int) -> None:
        super().__init__()
        width = options.width or backbone_width
        self.width = width
        self.scale = FeatureScale(backbone_width)
        self.project = nn.Linear(backbone_width, width)
        self.transformer = nn.Transformer(
            width,
            options.heads,
            options.encoder_layers,
            options.decoder_layers,
            dim_feedforward=4 * width,
            dropout=options.dropout,
            batch_first=True,
        )

    def bind(self, backbone: Backbone, knowledge: Knowledge) -> None:
        count, device = len(knowledge.labels), self.project.weight.device
        self.queries = nn.Parameter(torch.randn(count, self.width, device=device))
        self.classifier = nn.Parameter(torch.empty(count, self.width, device=device).uniform_(-1, 1) / self.width**0.5)
        self.bias = nn.Parameter(torch.zeros(count, device=device))
        positions = sine_positions(*backbone.grid, self.width).to(device)
        self.register_buffer("positions", positions, persistent=False)

    def initialise(self, sample: ImageFeatures, targets: Tensor, labels: LabelFeatures) -> None:
        self.scale.start_from(sample.regions)

    def logit_biases(self) -> dict[str, nn.Parameter]:
        return {"region": self.bias}

    def forward(self, features: ImageFeatures, labels: LabelFeatures, explain: bool = False) -> Prediction:
        source = self.project(self.scale(features.regions)) + self.positions  # (B, M, w)
        states = self.transformer(source, self.queries.expand(source.shape[0], -1, -1))  # (B, C, w)
        return Prediction({"region": (states * self.classifier).sum(dim=-1) + self.bias})


def sine_positions(rows: int, columns: int, width: int) -> torch.Tensor:
    """(rows * columns, width): sines and cosines of the row in the first half, and of the column in the second."""
    half = width // 2
    frequencies = 10000.0 ** (-torch.arange(0, half, 2) / half)

    def along(count: int, size: int) -> torch.Tensor:
        angles = torch.arange(1, count + 1)[:, None] * frequencies  # (count, half / 2)
        return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :size]

    row, column = along(rows, half), along(columns, width - half)
    grid = torch.cat([row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)], dim=-1)
    return grid.flatten(0, 1)
