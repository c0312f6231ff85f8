"""The heads by name: the one list that the configuration and the commands read."""

from typing import Annotated

from pydantic import Field

from sspa.stage2_training.model.baselines.linear_probe import LinearProbe, LinearProbeOptions
from sspa.stage2_training.model.contract import Head
from sspa.stage2_training.model.options import SspaOptions
from sspa.stage2_training.model.sspa import SSPA

HeadOptions = Annotated[SspaOptions | LinearProbeOptions, Field(discriminator="head")]

_HEADS: dict[type, type[Head]] = {SspaOptions: SSPA, LinearProbeOptions: LinearProbe}


def create_head(options: SspaOptions | LinearProbeOptions, backbone_width: int) -> Head:
    """The head that `options` configures, for a joint space of `backbone_width`; still without labels."""
    return _HEADS[type(options)](options, backbone_width)
