"""One run's configuration: typed, frozen, and the only place of its defaults.

`resolving` makes it from a preset, `--config` files, `--set key=value` and options; it is written beside the result.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from sspa.stage2_training.compute.precision import Precision
from sspa.stage2_training.data.splitting import Fold
from sspa.stage2_training.data.subsets import Subset
from sspa.stage2_training.data.transforms import TransformOptions
from sspa.stage2_training.model.baselines.options import (
    CsraOptions,
    DualCoOpOptions,
    LinearProbeOptions,
    MlDecoderOptions,
    Query2LabelOptions,
    TipAdapterOptions,
    ZeroShotOptions,
)
from sspa.stage2_training.model.loss_options import AslOptions, LossOptions
from sspa.stage2_training.model.options import Fraction, Options, PositiveFloat, PositiveInt, SspaOptions, View

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


Pixels = Annotated[int, Field(ge=1, le=8192)]
# One label needs no brackets.
Unseen = Annotated[
    Annotated[int, Field(ge=0)] | tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]


def _height_and_width(value: object) -> object:
    """(n, n) of n or "n", (h, w) of "HxW", anything else as it is."""
    if isinstance(value, int | str) and re.fullmatch(r"[0-9]+(x[0-9]+)?", str(value)):
        height, _, width = str(value).partition("x")
        return int(height), int(width or height)
    return value


ImageSize = Annotated[tuple[Pixels, Pixels], BeforeValidator(_height_and_width)]


def _checked_fold(text: str) -> str:
    Fold.parse(text)
    return text


def _checked_tower(text: str) -> str:
    if not re.fullmatch(r"frozen|all|last:[1-9][0-9]*", text):
        raise ValueError("take frozen, all, or last:K with K blocks, such as last:2")
    return text


def _checked_scale(scale: tuple[float, float]) -> tuple[float, float]:
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(
            "write the smallest and the largest share of the area, such as [0.6, 1.0]; 0 < smallest <= largest <= 1"
        )
    return scale


def _checked_views(views: tuple[View, ...]) -> tuple[View, ...]:
    if not views or len(set(views)) < len(views):
        raise ValueError("write one view or both, such as [plain, mirrored]")
    return views


FoldText = Annotated[str, AfterValidator(_checked_fold)]
TowerText = Annotated[str, AfterValidator(_checked_tower)]
Scale = Annotated[tuple[float, float], AfterValidator(_checked_scale)]
Views = Annotated[tuple[View, ...], AfterValidator(_checked_views)]


class DataOptions(Options):
    """Which images, and how they are loaded."""

    name: str = Field("scenes", description="a data set's name, or a manifest (*.parquet)")
    root: Path | None = Field(None, description="its folder; `scenes` needs none")
    protocol: str | None = Field(None, description="one of the data set's, or your own (*.yaml); null: its first")
    val_fraction: Fraction | None = Field(None, description="share of training held out; null: the data set's own val")
    fold: FoldText | None = Field(
        None, description="1/3: one of three folds of train and val is scored instead of test"
    )
    known_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of known training labels; the others, drawn by seed and image, are unknown"
    )
    shots: PositiveInt | None = Field(None, description="training images per label, drawn by seed; null: all")
    unseen: Unseen = Field(0, description="labels unknown in train and val: their keys, or how many to draw by seed")
    unreadable: Literal["stop", "leave-out"] = Field(
        "stop", description="images that cannot be read: training goes on without them, and scoring stops or does too"
    )
    unreadable_share: Fraction = Field(0.01, description="more unreadable training images than this stop the run")
    workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = Field(
        "auto", description="worker processes that read images; auto: one per core, at most 16"
    )
    train_resize: Literal["squash", "crop"] = Field("crop", description="random resized crop; tower trained")
    crop_scale: Scale = Field((0.6, 1.0), description="random crops' share of the area; tower trained")
    randaugment: Annotated[int, Field(ge=0, le=100)] = Field(0, description="RandAugment operations; tower trained")
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = Field(9, description="RandAugment magnitude")
    cutout: Fraction = Field(0.0, description="probability of blanking one square; tower trained")
    cutout_size: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="that square's share of the area")

    @property
    def subset(self) -> Subset:
        """How the training data is reduced."""
        return Subset(self.known_fraction, self.shots, self.unseen)

    @property
    def held_out(self) -> Fold | None:
        """The fold that is scored instead of test."""
        return None if self.fold is None else Fold.parse(self.fold)

    def transform_options(self, views: tuple[View, ...] = ()) -> TransformOptions:
        """How images are resized and augmented; training flips them if `views` says so."""
        return TransformOptions(
            train_resize=self.train_resize,
            crop_scale=self.crop_scale,
            flip=0.5 if "mirrored" in views else 0.0,
            randaugment=self.randaugment,
            randaugment_magnitude=self.randaugment_magnitude,
            cutout=self.cutout,
            cutout_size=self.cutout_size,
        )


class BackboneOptions(Options):
    """Which two towers."""

    name: str = Field("embedded", description="`embedded`, `open_clip:ViT-B-16`, `hf-hub:OWNER/NAME`")
    weights: str | None = Field(None, description="open_clip's pretrained tag, a local weights file, or `random`")
    image_size: ImageSize | None = Field(None, description="[height, width], 256x128 or 448; null: its own")
    regions: Literal["default", "projected", "value"] = Field(
        "default", description="projected tokens, or the last layer's value path; default: depends on the tower"
    )
    region_grid: tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="[rows, columns] that regions are averaged to, to keep fewer; null: the tower's (our extension)",
    )
    tower: TowerText = Field(
        "frozen", description="which part of the image tower is trained: `frozen`, `last:2` blocks, `all`"
    )


class TrainingOptions(Options):
    """The recipe (reconstruction)."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(0, description="of everything random")
    epochs: Annotated[int, Field(ge=0, le=1_000_000)] = Field(6, description="0 evaluates the untrained model")
    batch_size: PositiveInt = Field(32, description="images per step, over all processes together")
    lr: PositiveFloat = Field(5e-4, description="learning rate of the new modules")
    prompt_lr: PositiveFloat = Field(2e-3, description="learning rate of the context vectors")
    scalar_lr: PositiveFloat = Field(5e-3, description="learning rate of temperatures, scales and residual weights")
    tower_lr: PositiveFloat = Field(5e-6, description="learning rate of the image tower, if it is trained")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-2, description="not for gains, biases, scalars, prompts")
    warmup_epochs: Annotated[float, Field(ge=0)] = Field(0.5, description="in which learning rates rise from 0")
    clip_norm: PositiveFloat = Field(5.0, description="maximum norm of the gradient, over all parameters")
    ema_decay: Fraction = Field(0.99, description="decay of the averaged weights, which are the ones evaluated")
    views: Views = Field(("plain", "mirrored"), description="one is drawn per image and epoch")
    precision: Precision = Field("float32", description="precision of training, by autocast")
    gradients_sent_in: Literal["float32", "bf16"] = Field(
        "float32", description="what gradients are summed in over processes; bf16 sends half as much"
    )
    accumulate: PositiveInt = Field(1, description="parts that a batch is split into: the same step in less memory")
    checkpoint_activations: bool = Field(False, description="recompute the image tower's in the backward pass")
    compile: bool = Field(False, description="torch.compile the head, the text tower, and a trained image tower")
    deterministic: bool = Field(False, description="deterministic algorithms only; a CPU has no others")
    branch_shares: Literal["equal", "fitted"] = Field(
        "fitted",
        description="the branches' shares in the prediction; fitted: those with the best val mAP (our extension)",
    )
    score_every: PositiveInt = Field(1, description="epochs from one scoring of val to the next; the last is scored")
    early_stopping: PositiveInt | None = Field(None, description="stop after this many epochs without a better val mAP")
    divergence_factor: Annotated[float, Field(gt=1)] = Field(
        10.0, description="ratio of the loss to its running median that counts as divergence"
    )
    divergence_steps: PositiveInt = Field(20, description="number of such steps in a row that stops the run")
    checkpoint_every: PositiveInt | None = Field(1000, description="steps within an epoch; its end always has one")
    tensorboard: bool = Field(False, description="also write the run's curves for TensorBoard")


# Of `teacher.run`: the run makes its own.
OWN_TEACHER = "self"


class TeacherOptions(Options):
    """Self-training (ours): what a teacher is sure of stands for unknown labels of train."""

    run: str | None = Field(
        None, description="a finished run; `self`: one that is made first, in RUN/teacher; null: no teacher"
    )
    preset: str | None = Field(None, description="recipe of the teacher, if that is `self`; null: the run's own")
    repeat: PositiveInt = Field(
        1, description="times that an epoch has each training image of which something was known before"
    )
    sure: Annotated[float, Field(gt=0.5, le=1)] = Field(
        0.7, description="probability above which a label counts as present, and below 1 minus it as absent"
    )


class EvaluationOptions(Options):
    """How images are scored."""

    batch_size: PositiveInt = Field(64, description="images that are scored at a time")
    views: Views = Field(("plain",), description="views whose probabilities are averaged, e.g. plain and mirrored")


class RunConfig(Options):
    """Everything that a run depends on, except the machine."""

    knowledge: Path = Field(description="the knowledge file that sspa-knowledge wrote; --knowledge")
    preset: str | None = Field(None, description="the recipe that overrides the defaults; null: none")
    data: DataOptions = DataOptions()
    backbone: BackboneOptions = BackboneOptions()
    model: HeadOptions = SspaOptions()
    loss: LossOptions = AslOptions()
    training: TrainingOptions = TrainingOptions()
    teacher: TeacherOptions = TeacherOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
