"""The contract of every head: image features and label features in, logits per branch out.

Legend: B images, M regions, C labels, d width of the backbone's joint space.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.mixture import Mixture
from sspa.stage2_training.model.options import Averaged

# What a head computed from the label texts; which tensors, each (C, ...), is up to the head.
LabelFeatures = Mapping[str, Tensor]


@dataclass(frozen=True)
class Evidence:
    """The model's intermediate results, for explanations; None where the head has no such part.

    dsf_attention (B, C, M): where each label's text looked. v_to_s (B, C, M) and s_to_v (B, M, C):
    both cross-attentions, mean over heads. text_gate (B, C, d or 1) and image_gate (B, M, d or 1):
    how much the gates let through. region_logits (B, M, C) and region_weights (B, M, C): the score of
    each region, and its weight.
    """

    region_logits: Tensor
    region_weights: Tensor
    dsf_attention: Tensor | None = None
    v_to_s: Tensor | None = None
    s_to_v: Tensor | None = None
    text_gate: Tensor | None = None
    image_gate: Tensor | None = None


@dataclass(frozen=True)
class Prediction:
    """Logits (B, C) per branch ("region", "global", "knowledge"), and the evidence if it was requested."""

    logits: Mapping[str, Tensor]
    evidence: Evidence | None = None
    mixture: Mixture = field(default_factory=Mixture)

    def branches(self) -> dict[str, Tensor]:
        """The probabilities (B, C), float32, of each branch."""
        return {name: logits.float().sigmoid() for name, logits in self.logits.items()}

    def probabilities(self) -> dict[str, Tensor]:
        """`branches`, and under "both" their mixture: the prediction from this view alone."""
        return self.mixture.added_to(self.branches())


@dataclass(frozen=True)
class UsedDescription:
    """A description and its weight in its label's knowledge (0: not used).

    `score` is the probability that it points to its own label (see telling.py); None if nothing was selected.
    """

    text: str
    weight: float
    score: float | None


def all_used(texts: Iterable[str]) -> list[UsedDescription]:
    """Descriptions among which nothing chooses."""
    return [UsedDescription(text, weight=1.0, score=None) for text in texts]


def most_used_first(descriptions: Iterable[UsedDescription]) -> list[UsedDescription]:
    """By weight, and where that is equal by score; the order of the knowledge where both are."""
    return sorted(descriptions, key=lambda known: (-known.weight, -(known.score or 0.0)))


class Head(nn.Module, ABC):
    """A method on top of a backbone. `bind` comes first; a head without per-label parameters
    (`open_vocabulary`) can be bound again, to labels it has never seen."""

    open_vocabulary = False
    # False if only the pooled feature is read: regions, which are far larger, need not be kept then.
    reads_regions = True
    # Of each label of the bound knowledge; None if the head reads no descriptions.
    descriptions: tuple[tuple[UsedDescription, ...], ...] | None = None
    # What of the branches the prediction averages, and the share of each, in the order of the logits; no shares if
    # there is only one branch.
    averaged: Averaged = "logits"
    branch_shares: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("branch_shares", None)

    @property
    def mixture(self) -> Mixture:
        """How the branches make up the prediction."""
        return Mixture(self.averaged, self.branch_shares)

    @abstractmethod
    def bind(self, backbone: Backbone, knowledge: Knowledge) -> None:
        """Adopt the labels, in the order of `knowledge`, and compute once what depends on their texts alone."""

    @property
    def sample_images(self) -> int:
        """How many training images `initialise` wants, about."""
        return 256

    def initialise(self, sample: ImageFeatures, targets: Tensor, labels: LabelFeatures) -> None:
        """Set data-dependent initial values, given training images, their targets (N, C) and `encode_labels`.

        Does nothing by default.
        """

    def prompt_parameters(self) -> list[nn.Parameter]:
        """The parameters that pass through the text tower and need their own learning rate."""
        return []

    def logit_biases(self) -> dict[str, nn.Parameter]:
        """Per branch, the parameter added to its logits: one number for all labels, or (C,). Empty by default."""
        return {}

    def encode_labels(self, backbone: Backbone) -> LabelFeatures:
        """The label features: computed at every training step (gradients flow to prompts), once in evaluation."""
        return {}

    @abstractmethod
    def forward(self, features: ImageFeatures, labels: LabelFeatures, explain: bool = False) -> Prediction:
        """Score the labels of the bound knowledge."""


def trainable_count(module: nn.Module) -> int:
    """How many numbers in `module` are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
