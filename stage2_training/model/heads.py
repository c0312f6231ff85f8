"""The registry of heads, read by the configuration and the commands."""

from typing import Annotated, Any

from pydantic import Field

from sspa.stage2_training.model.baselines.csra import CSRA, CsraOptions
from sspa.stage2_training.model.baselines.dual_coop import DualCoOp, DualCoOpOptions
from sspa.stage2_training.model.baselines.linear_probe import LinearProbe, LinearProbeOptions
from sspa.stage2_training.model.baselines.ml_decoder import MLDecoder, MlDecoderOptions
from sspa.stage2_training.model.baselines.query2label import Query2Label, Query2LabelOptions
from sspa.stage2_training.model.baselines.tip_adapter import TipAdapter, TipAdapterOptions
from sspa.stage2_training.model.baselines.zero_shot import ZeroShot, ZeroShotOptions
from sspa.stage2_training.model.contract import Head
from sspa.stage2_training.model.options import Options, SspaOptions
from sspa.stage2_training.model.sspa import SSPA

HeadOptions = Annotated[
    SspaOptions
    | ZeroShotOptions
    | TipAdapterOptions
    | LinearProbeOptions
    | CsraOptions
    | MlDecoderOptions
    | Query2LabelOptions
    | DualCoOpOptions,
    Field(discriminator="head"),
]

_HEADS: dict[type[Options], Any] = {
    SspaOptions: SSPA,
    ZeroShotOptions: ZeroShot,
    TipAdapterOptions: TipAdapter,
    LinearProbeOptions: LinearProbe,
    CsraOptions: CSRA,
    MlDecoderOptions: MLDecoder,
    Query2LabelOptions: Query2Label,
    DualCoOpOptions: DualCoOp,
}


def reads_regions(options: Options) -> bool:
    """Whether the head that `options` configures reads regions, or the pooled feature alone."""
    return bool(_HEADS[type(options)].reads_regions)


def create_head(options: Options, backbone_width: int) -> Head:
    """The head that `options` configures, for a joint space of `backbone_width`; not yet bound to labels."""
    head: Head = _HEADS[type(options)](options, backbone_width)
    return head
