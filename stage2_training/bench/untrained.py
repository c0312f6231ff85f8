"""The full model, untrained, for measuring its cost, which does not depend on weights."""

from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from sspa.shared.knowledge import Knowledge
from sspa.shared.label_sets import read_label_set
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.backbones.folding import fold_batch_norms
from sspa.stage2_training.backbones.trainable import set_trainable
from sspa.stage2_training.compute.precision import Precision
from sspa.stage2_training.model.heads import create_head
from sspa.stage2_training.model.options import SspaOptions
from sspa.stage2_training.model.recognizer import Recognizer


def untrained_sspa(spec: str, tower: str, labels: str, images: Tensor, precision: Precision = "float32") -> Recognizer:
    """SSPA with its defaults on a backbone with random weights (`embedded` has its own), on the images' device.

    Args:
        spec, tower: as in a run's configuration.
        labels: a label set by name, or a label file; prompts consist of the bare names.
        images: (B, 3, H, W): they determine the input size and data-dependent initial values.

    Raises:
        UserError: an unknown backbone, tower setting or label set.
    """
    torch.manual_seed(0)
    weights = None if spec == "embedded" else "random"
    height, width = images.shape[-2:]
    backbone = create_backbone(spec, weights=weights, image_size=(height, width), precision=precision).to(images.device)
    set_trainable(backbone, tower)
    if tower == "frozen":
        fold_batch_norms(backbone.image_tower, backbone.image_size)
    label_set = read_label_set(labels)
    knowledge = Knowledge(
        path=Path(labels),
        labels=label_set.labels,
        domain="natural",
        content_hash="",
        descriptions=MappingProxyType(dict.fromkeys(label_set.keys, ())),
    )
    head = create_head(SspaOptions(), backbone.width).to(images.device)
    head.bind(backbone, knowledge)
    head.to(images.device)
    with torch.no_grad():
        targets = torch.zeros(len(images), len(label_set.labels))
        head.initialise(backbone.encode_image(images), targets, head.encode_labels(backbone))
    return Recognizer(backbone, head)
