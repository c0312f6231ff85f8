"""Zero-shot: the image against each label's prompt; nothing is learned that could change a ranking.

Legend: B images, C labels, d width of the backbone's joint space.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.baselines.options import ZeroShotOptions
from sspa.stage2_training.model.contract import Head, LabelFeatures, Prediction
from sspa.stage2_training.model.global_branch import LogitScale
from sspa.stage2_training.model.kap import KnowledgeFeatures


class ZeroShot(Head):
    """logit = scale * cos(x0, T) + bias.

    Scale and bias, one each, can be trained: they determine where probability 0.5 lies (CF1, OF1), but not a
    label's ranking, and hence not its AP.
    """

    open_vocabulary = True
    reads_regions = False
    texts: Tensor

    def __init__(self, options: ZeroShotOptions, backbone_width: int) -> None:
        super().__init__()
        self.options = options

    def bind(self, backbone: Backbone, knowledge: Knowledge) -> None:
        features = KnowledgeFeatures.of(backbone, knowledge, self.options.kap)
        self.descriptions = features.descriptions
        self.register_buffer("texts", F.normalize(features.t_ka, dim=-1), persistent=False)
        if not hasattr(self, "to_logit"):
            self.to_logit = LogitScale(backbone.initial_temperature, self.options.bias)

    def logit_biases(self) -> dict[str, nn.Parameter]:
        return {"global": self.to_logit.bias}

    def encode_labels(self, backbone: Backbone) -> LabelFeatures:
        return {"T": self.texts}

    def forward(self, features: ImageFeatures, labels: LabelFeatures, explain: bool = False) -> Prediction:
        return Prediction({"global": self.to_logit(F.normalize(features.pooled, dim=-1) @ labels["T"].mT)})
