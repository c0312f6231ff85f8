"""SSPA before any training, which tags with nothing but the two towers and the labels' texts."""

import torch

from sspa.shared.knowledge import Knowledge
from sspa.shared.terminal import say
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.backbones.folding import fold_batch_norms
from sspa.stage2_training.backbones.unfamiliar_labels import say_unfamiliar
from sspa.stage2_training.compute.precision import Precision
from sspa.stage2_training.config.run_config import BackboneOptions
from sspa.stage2_training.inference.loading import make_backbone
from sspa.stage2_training.model.contract import Head
from sspa.stage2_training.model.heads import create_head
from sspa.stage2_training.model.options import CapOptions, DsfOptions, GdmaOptions, QsmOptions, SspaOptions
from sspa.stage2_training.model.recognizer import Recognizer


def untrained_recognizer(
    knowledge: Knowledge,
    options: BackboneOptions,
    device: torch.device,
    precision: Precision = "float32",
    allow_download: bool = True,
) -> Recognizer:
    """SSPA as it is before training, in evaluation mode, bound to the labels of `knowledge`.

    Every part that starts at zero is left out, and the joint space keeps its width, so nothing is drawn at random and
    no image has a say: an image's probabilities do not depend on those that are tagged with it. Torch's random state
    is preserved.

    Raises:
        UserError: see `create_backbone`.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        backbone = make_backbone(options, device, precision, allow_download)
        say(f"{backbone.name}: {backbone.description}; on {device}; untrained")
        say_unfamiliar(knowledge.labels, backbone)
        fold_batch_norms(backbone.image_tower, backbone.image_size)
        head = untrained_head(backbone, knowledge, device)
    return Recognizer(backbone, head).eval()


def untrained_head(backbone: Backbone, knowledge: Knowledge, device: torch.device) -> Head:
    """The head of `untrained_recognizer`, bound to the labels of `knowledge`, for a backbone on `device`.

    Raises:
        UserError: a label is too long for the text tower.
    """
    options = SspaOptions(
        width=backbone.width,
        cap=CapOptions(learned=False),
        dsf=DsfOptions(enabled=False),
        qsm=QsmOptions(kind="none"),
        gdma=GdmaOptions(v_to_s=False, s_to_v=False),
    )
    head = create_head(options, backbone.width).to(device)
    head.bind(backbone, knowledge)
    return head


def shift_to_expect(excess: torch.Tensor, labels_per_image: float) -> float:
    """What to add to all logits so that an image has so many labels at or above their thresholds, on average.

    Args:
        excess: (N, C) logits less those of the thresholds.
        labels_per_image: above 0 and below C.
    """
    wanted = min(max(round(labels_per_image * len(excess)), 1), excess.numel() - 1)
    above, below = excess.flatten().topk(wanted + 1).values[-2:].tolist()
    return -(above + below) / 2
