"""SSPA: split, synthesize, align, aggregate. The paper's whole figure, part by part.

Legend: B images, M regions, C labels, S text rows (one per label, or one per description if logits are
averaged), d width of the backbone's joint space, w width of the model's parts.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.cap import ContextAwarePrompting, encode_together
from sspa.stage2_training.model.contract import Evidence, Head, LabelFeatures, Prediction
from sspa.stage2_training.model.dsf import DynamicSemanticFiltering
from sspa.stage2_training.model.gdma import GatedDualModalAlignments
from sspa.stage2_training.model.global_branch import GlobalBranch, LogitScale
from sspa.stage2_training.model.joint_space import JointSpace
from sspa.stage2_training.model.kap import KnowledgeFeatures
from sspa.stage2_training.model.options import SspaOptions
from sspa.stage2_training.model.soft_aggregator import SoftAggregator, region_similarities
from sspa.stage2_training.model.synthesis import make_synthesis


class SSPA(Head):
    """Split-and-synthesize prompting with gated alignments.

    Untrained, every branch equals zero-shot, but for what a narrowed joint space loses: image and text start with the
    same basis of it, and every residual part starts at zero.
    """

    open_vocabulary = True
    t_ka: Tensor

    label_of_row: Tensor
    rows_of_labels: Tensor
    weights_of_labels: Tensor

    def __init__(self, options: SspaOptions, backbone_width: int) -> None:
        super().__init__()
        self.options = options
        self.joint_space = JointSpace(backbone_width, options.width)
        width = self.joint_space.width
        self.cap = ContextAwarePrompting(options.cap)
        self.dsf = DynamicSemanticFiltering(width, options.dsf) if options.dsf.enabled else None
        self.qsm = make_synthesis(width, options.qsm)
        self.gdma = GatedDualModalAlignments(width, options.gdma)
        self.aggregator = SoftAggregator(options.aggregator)
        self.to_logit = LogitScale(options.scale, options.bias)
        self.global_cap = ContextAwarePrompting(options.cap) if options.global_branch else None
        self.global_branch = GlobalBranch(options.scale, options.bias) if options.global_branch else None
        self.knowledge_branch = GlobalBranch(options.scale, options.bias) if options.knowledge_branch else None
        self.region_dropout = nn.Dropout1d(options.region_dropout)
        self.averaged = options.mixture
        branches = 1 + options.global_branch + options.knowledge_branch
        self.register_buffer("branch_shares", torch.full((branches,), 1 / branches))
        self.register_load_state_dict_pre_hook(_equal_shares)

    def bind(self, backbone: Backbone, knowledge: Knowledge) -> None:
        features = KnowledgeFeatures.of(backbone, knowledge, self.options.kap)
        self.descriptions = features.descriptions
        self.register_buffer("t_ka", features.t_ka, persistent=False)
        self.register_buffer("label_of_row", features.label_of_row, persistent=False)
        rows_of_labels = F.one_hot(features.label_of_row).to(features.weight_of_row)  # (S, C)
        self.register_buffer("rows_of_labels", rows_of_labels, persistent=False)
        self.register_buffer("weights_of_labels", rows_of_labels * features.weight_of_row[:, None], persistent=False)
        for prompts in (self.cap, self.global_cap):
            if prompts is not None:
                prompts.bind(backbone, knowledge)

    def initialise(self, sample: ImageFeatures, targets: Tensor, labels: LabelFeatures) -> None:
        texts = F.normalize(torch.cat([labels["T_ka"], labels["T"]]), dim=-1)
        self.joint_space.start_from(sample.regions, texts)

    def prompt_parameters(self) -> list[nn.Parameter]:
        return [cast(nn.Parameter, prompts.context) for prompts in (self.cap, self.global_cap) if prompts is not None]

    def logit_biases(self) -> dict[str, nn.Parameter]:
        branches = {"global": self.global_branch, "knowledge": self.knowledge_branch}
        biases = {name: branch.to_logit.bias for name, branch in branches.items() if branch is not None}
        return {"region": self.to_logit.bias, **biases}

    def encode_labels(self, backbone: Backbone) -> LabelFeatures:
        """T_ka (S, d), T (C, d) and T_g (C, d), in the backbone's joint space."""
        sets = {"T": self.cap} if self.global_cap is None else {"T": self.cap, "T_g": self.global_cap}
        return {"T_ka": self.t_ka, **dict(zip(sets, encode_together(backbone, *sets.values()), strict=True))}

    def forward(self, features: ImageFeatures, labels: LabelFeatures, explain: bool = False) -> Prediction:
        x0 = self.joint_space.of_image(features.pooled)  # (B, w)
        regions = self.joint_space.of_image(features.regions)  # (B, M, w)
        t_ka = self.joint_space.of_text(labels["T_ka"])  # (S, w)
        t = self.joint_space.of_text(labels["T"])[self.label_of_row]  # (S, w)

        if self.dsf is not None:
            t_ca, dsf_attention = self.dsf(t, regions)  # (B, S, w)
        else:
            t_ca, dsf_attention = t.expand(x0.shape[0], -1, -1), None
        t_uf = self.qsm(t_ka, t_ca, x0)  # (B, S, w)
        text, image = self.gdma(t_uf, regions, explain)
        similarities = region_similarities(self.region_dropout(image.features), text.features)  # (B, M, S)
        scores, weights = self.aggregator(similarities)

        logits = {"region": self._by_label(self.to_logit(scores))}
        if self.global_branch is not None:
            logits["global"] = self.global_branch(x0, self.joint_space.of_text(labels["T_g"]))
        if self.knowledge_branch is not None:
            logits["knowledge"] = self._by_label(self.knowledge_branch(features.pooled, labels["T_ka"]))
        if not explain:
            return Prediction(logits, mixture=self.mixture)
        evidence = Evidence(
            region_logits=self._by_label(self.to_logit(similarities)),
            region_weights=self._by_label(weights),
            dsf_attention=None if dsf_attention is None else self._by_label(dsf_attention.mT).mT,
            v_to_s=None if text.attention is None else self._by_label(text.attention.mT).mT,
            s_to_v=None if image.attention is None else image.attention @ self.rows_of_labels.to(image.attention.dtype),
            text_gate=None if text.gate is None else self._by_label(text.gate.mT).mT,
            image_gate=image.gate,
        )
        return Prediction(logits, evidence, self.mixture)

    def _by_label(self, by_row: Tensor) -> Tensor:
        """Weighted mean over each label's rows: (..., S) -> (..., C)."""
        if self.options.kap.average == "embeddings":
            return by_row
        return by_row @ self.weights_of_labels.to(by_row.dtype)


def _equal_shares(head: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights from before the shares were fitted: equal ones."""
    assert isinstance(head, SSPA)
    shares = cast(Tensor, head.branch_shares)
    state.setdefault(f"{prefix}branch_shares", torch.full_like(shares, 1 / len(shares)))
