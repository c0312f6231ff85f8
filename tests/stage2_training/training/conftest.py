"""A small model with a trainable head."""

import pytest
import torch

from sspa.stage2_training.backbones.trainable import set_trainable
from sspa.stage2_training.model.options import SspaOptions
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.model.sspa import SSPA

from ..model.small_models import small_backbone, some_knowledge


@pytest.fixture
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    torch.manual_seed(0)
    backbone = small_backbone(tmp_path_factory.mktemp("backbone"))
    set_trainable(backbone, "frozen")
    head = SSPA(SspaOptions(), backbone.width)
    head.bind(backbone, some_knowledge())
    return Recognizer(backbone, head)
