"""Options of the baselines, each with its paper's settings as defaults."""

from typing import Annotated, Literal

from pydantic import Field

from sspa.stage2_training.model.options import (
    Depth,
    Fraction,
    KapOptions,
    Options,
    PositiveFloat,
    PositiveInt,
    Width,
)


class ZeroShotOptions(Options):
    """CLIP's zero-shot classifier (Radford et al., CLIP, ICML 2021, section 3.1.2), one decision per label."""

    head: Literal["zero-shot"] = "zero-shot"
    kap: KapOptions = KapOptions(template="A photo of a {label}.")
    bias: float = Field(-3.0, description="initial bias of the logits: most labels are absent (reconstruction)")


class TipAdapterOptions(Options):
    """Tip-Adapter (Zhang et al., ECCV 2022) with 0 epochs; its fine-tuned form, which trains the keys, with more."""

    head: Literal["tip-adapter"] = "tip-adapter"
    kap: KapOptions = KapOptions(template="A photo of a {label}.")
    alpha: PositiveFloat = Field(1.0, description="weight of the cached images against the label texts")
    beta: PositiveFloat = Field(5.5, description="how much more the most similar cached images count")
    images: PositiveInt = Field(1024, description="training images that are cached at most, drawn by seed")
    bias: float = Field(-3.0, description="initial bias of the logits: most labels are absent (reconstruction)")


class LinearProbeOptions(Options):
    """Logistic regression on frozen features (Radford et al., CLIP, ICML 2021, section 3.2)."""

    head: Literal["linear"] = "linear"
    bias: float = Field(
        -2.5, description="initial bias, near the log-odds of a label; from 0 the weights would have to learn it"
    )


class CsraOptions(Options):
    """Zhu and Wu, "Residual Attention", ICCV 2021; defaults are its settings for VOC2007."""

    head: Literal["csra"] = "csra"
    heads: Literal[1, 2, 4, 6, 8] = Field(1, description="the paper: 1 on VOC2007, 4 to 8 on COCO and WIDER")
    weight: Annotated[float, Field(ge=0)] = Field(0.1, description="lambda, of the attended score")


class MlDecoderOptions(Options):
    """Ridnik et al., "ML-Decoder", WACV 2023; defaults are the paper's."""

    head: Literal["ml-decoder"] = "ml-decoder"
    width: Width = Field(768, description="width of the decoder; divisible by heads")
    groups: Width = Field(100, description="maximum number of queries; each decodes C / groups labels")
    heads: Width = Field(8, description="heads of each attention")
    hidden: Width = Field(2048, description="hidden width of the feed-forward network")
    dropout: Fraction = Field(0.1, description="in the decoder")


class Query2LabelOptions(Options):
    """Liu et al., "Query2Label", arXiv 2107.10834: one encoder and two decoder layers, four heads."""

    head: Literal["query2label"] = "query2label"
    width: Width | None = Field(None, description="width of the transformer; null: the tower's, as in the paper")
    heads: Width = Field(4, description="heads of each attention")
    encoder_layers: Depth = Field(1, description="transformer layers over the regions")
    decoder_layers: Depth = Field(2, description="transformer layers over the labels' queries")
    dropout: Fraction = Field(0.1, description="in every transformer layer")


class DualCoOpOptions(Options):
    """Sun et al., "DualCoOp", NeurIPS 2022; defaults are the paper's for labels that are all seen in training."""

    head: Literal["dualcoop"] = "dualcoop"
    context: Annotated[int, Field(ge=1, le=64)] = Field(16, description="learnable vectors of each prompt")
    class_specific: bool = Field(True, description="off, as in its zero-shot setting: labels may change afterwards")
    adapter: bool = Field(False, description="a residual linear map on the regions, which the paper does not have")
