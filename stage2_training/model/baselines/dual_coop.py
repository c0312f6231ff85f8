"""DualCoOp: a positive and a negative learnable prompt per label, compared region by region.

Legend: B images, M regions, C labels, d width of the backbone's joint space.
"""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.baselines.options import DualCoOpOptions
from sspa.stage2_training.model.cap import ContextAwarePrompting, encode_together
from sspa.stage2_training.model.contract import Evidence, Head, LabelFeatures, Prediction
from sspa.stage2_training.model.options import CapOptions

# The two factors in the authors' code: of the cosine before the softmax over regions, and of the result.
_REGION_SCALE, _SCORE_SCALE = 20.0, 5.0


def compare_prompts(regions: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The logits (B, C), those of regions (B, M, C), and the regions' weights (B, M, C).

    Both prompts' cosines with the regions are summed with the attention of the positive prompt; the
    probability is the softmax of the two sums, so the logit is their difference.
    """
    regions = F.normalize(regions, dim=-1)
    present = _REGION_SCALE * regions @ F.normalize(positive, dim=-1).mT  # (B, M, C)
    absent = _REGION_SCALE * regions @ F.normalize(negative, dim=-1).mT
    weights = present.softmax(dim=1)
    differences = _SCORE_SCALE * (present - absent)
    return (weights * differences).sum(dim=1), differences, weights


class DualCoOp(Head):
    """Two sets of context vectors through the frozen text tower; the image side is frozen and unchanged."""

    def __init__(self, options: DualCoOpOptions, backbone_width: int) -> None:
        super().__init__()
        self.open_vocabulary = not options.class_specific
        prompts = CapOptions(context=options.context, initial_words=None, class_specific=options.class_specific)
        self.positive, self.negative = ContextAwarePrompting(prompts), ContextAwarePrompting(prompts)
        self.adapter = nn.Linear(backbone_width, backbone_width, bias=False) if options.adapter else None
        if self.adapter is not None:
            nn.init.zeros_(self.adapter.weight)

    def bind(self, backbone: Backbone, knowledge: Knowledge) -> None:
        self.positive.bind(backbone, knowledge)
        self.negative.bind(backbone, knowledge)

    def prompt_parameters(self) -> list[nn.Parameter]:
        return [cast(nn.Parameter, prompts.context) for prompts in (self.positive, self.negative)]

    def encode_labels(self, backbone: Backbone) -> LabelFeatures:
        """T_pos and T_neg (C, d)."""
        positive, negative = encode_together(backbone, self.positive, self.negative)
        return {"T_pos": positive, "T_neg": negative}

    def forward(self, features: ImageFeatures, labels: LabelFeatures, explain: bool = False) -> Prediction:
        regions = features.regions
        if self.adapter is not None:
            regions = regions + self.adapter(regions)
        logits, of_regions, weights = compare_prompts(regions, labels["T_pos"], labels["T_neg"])
        return Prediction({"region": logits}, Evidence(of_regions, weights) if explain else None)
