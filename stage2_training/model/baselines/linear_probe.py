"""Linear probe: one linear map from the pooled feature to the labels.

Legend: B images, C labels, d width of the backbone's joint space.
"""

from torch import Tensor, nn

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.baselines.feature_scale import FeatureScale
from sspa.stage2_training.model.baselines.options import LinearProbeOptions
from sspa.stage2_training.model.contract import Head, LabelFeatures, Prediction


class LinearProbe(Head):
    """logits = W (x0 - training mean) / training deviation + b. Uses no label texts."""

    reads_regions = False

    def __init__(self, options: LinearProbeOptions, backbone_width: int) -> None:
        super().__init__()
        self.options, self.backbone_width = options, backbone_width
        self.scale = FeatureScale(backbone_width)

    def bind(self, backbone: Backbone, knowledge: Knowledge) -> None:
        self.linear = nn.Linear(self.backbone_width, len(knowledge.labels)).to(self.scale.mean.device)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, self.options.bias)

    def initialise(self, sample: ImageFeatures, targets: Tensor, labels: LabelFeatures) -> None:
        self.scale.start_from(sample.pooled)

    def logit_biases(self) -> dict[str, nn.Parameter]:
        return {"global": self.linear.bias}

    def forward(self, features: ImageFeatures, labels: LabelFeatures, explain: bool = False) -> Prediction:
        return Prediction({"global": self.linear(self.scale(features.pooled))})
