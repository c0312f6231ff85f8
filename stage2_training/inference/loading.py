"""Creates the model of a configuration, untrained or with a run's weights."""

import torch

from sspa.shared.errors import UserError
from sspa.shared.knowledge import Knowledge
from sspa.shared.terminal import say
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.backbones.folding import fold_batch_norms
from sspa.stage2_training.backbones.trainable import describe_trainable, set_trainable
from sspa.stage2_training.compute.precision import Precision, check_precision
from sspa.stage2_training.config.run_config import BackboneOptions, RunConfig
from sspa.stage2_training.model.heads import create_head
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_weights


def make_backbone(
    options: BackboneOptions, device: torch.device, precision: Precision, allow_download: bool
) -> Backbone:
    """The towers that a configuration names; see `create_backbone`.

    Raises:
        UserError: see there; or the device does not compute in that precision.
    """
    check_precision(precision, device, "precision")
    return create_backbone(
        options.name,
        weights=options.weights,
        image_size=options.image_size,
        regions=options.regions,
        region_grid=options.region_grid,
        precision=precision,
        allow_download=allow_download,
    ).to(device)


def make_recognizer(
    config: RunConfig,
    knowledge: Knowledge,
    device: torch.device,
    precision: Precision | None = None,
    allow_download: bool = True,
) -> Recognizer:
    """The untrained model of `config` for the labels of `knowledge`; data-dependent initial values are not set.

    Seeds torch's global generator, from which initial values are drawn.

    Args:
        precision: of the image tower; if None, that of the run's features and scores. Without a GPU, float32 stands for
            fp16 then, which a message says.
        allow_download: see `create_backbone`.
    """
    torch.manual_seed(config.training.seed)
    own = config.training.precision
    if precision is None and own == "fp16" and device.type == "cpu":
        say("the run computed in fp16, for which a GPU is needed; the image tower computes in float32 here")
        own = "float32"
    backbone = make_backbone(config.backbone, device, precision or own, allow_download)
    set_trainable(backbone, config.backbone.tower)
    say(f"{backbone.name}: {backbone.description}; on {device}; {describe_trainable(backbone)}")
    if config.backbone.tower == "frozen":
        fold_batch_norms(backbone.image_tower, backbone.image_size)
    head = create_head(config.model, backbone.width).to(device)
    head.bind(backbone, knowledge)
    return Recognizer(backbone, head.to(device))


def load_recognizer(
    folder: RunFolder, device: torch.device, precision: Precision | None = None, allow_download: bool = False
) -> tuple[Recognizer, RunConfig, Knowledge]:
    """The trained model of a run, in evaluation mode, bound to the labels it was trained on.

    Torch's random state is preserved.

    Args:
        precision: of the image tower; if None, the one the run scored itself with.
        allow_download: of a model from the hub that the run names; see `create_backbone`.

    Raises:
        UserError: a file of the run is missing or damaged.
    """
    config, knowledge = folder.config(), folder.knowledge()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        recognizer = make_recognizer(config, knowledge, device, precision, allow_download)
    read_weights(folder, recognizer.trained_modules())
    return recognizer.eval(), config, knowledge


def rebind(recognizer: Recognizer, knowledge: Knowledge) -> None:
    """Bind a trained model to other labels.

    Raises:
        UserError: it has per-label parameters.
    """
    if not recognizer.head.open_vocabulary:
        raise UserError(
            f"this run's head ({type(recognizer.head).__name__}) knows only the labels it was trained on; "
            "train with model.head=sspa to add labels later"
        )
    recognizer.head.bind(recognizer.backbone, knowledge)
