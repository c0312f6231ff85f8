"""Options of the losses; `loss.kind` selects one."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sspa.stage2_training.model.options import Fraction, Options, PositiveFloat


class Loss(Options):
    """Properties of a loss besides its options.

    Attributes:
        couples_images: the loss is not a sum over images, so a batch cannot be split into parts.
        ignores_shift: the loss is invariant to adding a constant to all logits, so it cannot fit their bias.
    """

    couples_images: ClassVar[bool] = False
    ignores_shift: ClassVar[bool] = False


class AslOptions(Loss):
    """Asymmetric loss (Ridnik et al., ICCV 2021), as timm computes it."""

    kind: Literal["asl"] = "asl"
    gamma_negative: Annotated[float, Field(ge=0)] = Field(2.0, description="focus on negatives (reconstruction)")
    gamma_positive: Annotated[float, Field(ge=0)] = Field(0.0, description="focus on positives (reconstruction)")
    clip: Fraction = Field(0.05, description="probability below which a negative costs nothing")
    smoothing: Fraction = Field(0.0, description="label smoothing: targets become s/2 and 1 - s/2")


class BceOptions(Loss):
    """Binary cross-entropy."""

    kind: Literal["bce"] = "bce"
    weighting: Literal["none", "frequency"] = Field(
        "none",
        description="frequency: of a label with the share p of positives in train, positives count exp(1 - p) and "
        "negatives exp(p) (Li et al., DeepMAR, ACPR 2015)",
    )
    smoothing: Fraction = Field(0.0, description="label smoothing: targets become s/2 and 1 - s/2")


class TwoWayOptions(Loss):
    """Two-way multi-label loss (Kobayashi, CVPR 2023): compares positives with negatives, per image and per label."""

    couples_images: ClassVar[bool] = True
    ignores_shift: ClassVar[bool] = True

    kind: Literal["two-way"] = "two-way"
    temperature: PositiveFloat = Field(4.0, description="of the soft maximum over positives")


LossOptions = Annotated[AslOptions | BceOptions | TwoWayOptions, Field(discriminator="kind")]
