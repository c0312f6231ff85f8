"""The registry of heads, read by the configuration and the commands."""

from typing import Any

from sspa.stage2_training.model.baselines.csra import CSRA
from sspa.stage2_training.model.baselines.dual_coop import DualCoOp
from sspa.stage2_training.model.baselines.linear_probe import LinearProbe
from sspa.stage2_training.model.baselines.ml_decoder import MLDecoder
from sspa.stage2_training.model.baselines.options import (
    CsraOptions,
    DualCoOpOptions,
    LinearProbeOptions,
    MlDecoderOptions,
    Query2LabelOptions,
    TipAdapterOptions,
    ZeroShotOptions,
)
from sspa.stage2_training.model.baselines.query2label import Query2Label
from sspa.stage2_training.model.baselines.tip_adapter import TipAdapter
from sspa.stage2_training.model.baselines.zero_shot import ZeroShot
from sspa.stage2_training.model.contract import Head
from sspa.stage2_training.model.options import Options, SspaOptions
from sspa.stage2_training.model.sspa import SSPA

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
