"""One run's configuration: typed, frozen, and the only place of its defaults.

It is made of a preset, `--config` files, `--set key=value` and the options of the command line, in that order, and
written beside the result.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from sspa.shared.errors import UserError
from sspa.stage2_training.config.presets import preset_file, preset_of
from sspa.stage2_training.data.splitting import Fold
from sspa.stage2_training.data.subsets import Subset
from sspa.stage2_training.model.heads import HeadOptions
from sspa.stage2_training.model.losses import AslOptions, LossOptions
from sspa.stage2_training.model.options import Fraction, Options, PositiveFloat, PositiveInt, SspaOptions

View = Literal["plain", "mirrored"]
# Where they differ, the result is the same; knowledge is held to its content hash instead of its path, and what a
# preset sets stands in the other keys.
_OF_NO_MATTER = frozenset({"data.workers", "knowledge", "preset", "training.checkpoint_every", "training.tensorboard"})
# Sections that have one form for each value of a key, and the value where none is given.
_VARIANTS = {"model": {"head": "sspa"}, "loss": {"kind": "asl"}}
# One label needs no brackets.
Unseen = Annotated[
    Annotated[int, Field(ge=0)] | tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]


def _checked_fold(text: str) -> str:
    Fold.parse(text)
    return text


FoldText = Annotated[str, AfterValidator(_checked_fold)]


class DataOptions(Options):
    """Which pictures, and how they are brought to the backbone."""

    name: str = Field("scenes", description="a data set's name, or a manifest (*.parquet)")
    root: Path | None = Field(None, description="its folder; `scenes` needs none")
    protocol: str | None = Field(None, description="null: the data set's first")
    val_fraction: Fraction | None = Field(None, description="held out of training; null: the data set's own val")
    fold: FoldText | None = Field(
        None, description="1/3: one of three folds of train and val is scored in the place of test"
    )
    known_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="of training labels; the others, drawn by seed and picture, are unknown"
    )
    shots: PositiveInt | None = Field(None, description="training pictures a label, drawn by seed; null: all")
    unseen: Unseen = Field(0, description="labels unknown in train and val: their keys, or how many to draw by seed")
    workers: Annotated[int, Field(ge=0)] = Field(2, description="reading processes")
    crop_scale: tuple[float, float] = Field((0.6, 1.0), description="random crops' share of the area, tower trained")
    randaugment: Annotated[int, Field(ge=0)] = Field(0, description="operations a picture, tower trained")
    cutout: Fraction = Field(0.0, description="probability of one blanked square, tower trained")

    @property
    def subset(self) -> Subset:
        """What is left of the training data."""
        return Subset(self.known_fraction, self.shots, self.unseen)

    @property
    def held_out(self) -> Fold | None:
        """The fold that is scored in the place of test."""
        return None if self.fold is None else Fold.parse(self.fold)


class BackboneOptions(Options):
    """Which two towers."""

    name: str = Field("embedded", description="`embedded`, `open_clip:ViT-B-16`, `hf-hub:OWNER/NAME`")
    weights: str | None = Field(None, description="open_clip's pretrained tag, a local weights file, or `random`")
    image_size: tuple[PositiveInt, PositiveInt] | None = Field(None, description="height, width; null: its own")
    regions: Literal["default", "projected", "value"] = Field(
        "default", description="projected tokens, or the last layer's value path; default: what suits the tower"
    )
    tower: str = Field("frozen", description="what of the image tower is trained: `frozen`, `last:2` blocks, `all`")


class TrainingOptions(Options):
    """The recipe (reconstruction)."""

    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=0)] = Field(6, description="0 evaluates the untrained model")
    batch_size: PositiveInt = 32
    lr: PositiveFloat = Field(5e-4, description="of the new modules")
    prompt_lr: PositiveFloat = Field(2e-3, description="of the context vectors")
    scalar_lr: PositiveFloat = Field(5e-3, description="of temperatures, scales and residual weights")
    tower_lr: PositiveFloat = Field(5e-6, description="of the image tower, where it is trained")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-2, description="not of gains, biases, scalars, prompts")
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.5
    clip_norm: PositiveFloat = Field(5.0, description="of the gradient, over all parameters")
    ema_decay: Fraction = Field(0.99, description="of the averaged weights, which are what is evaluated")
    views: tuple[View, ...] = Field(("plain", "mirrored"), description="one drawn for each picture and epoch")
    precision: Literal["float32", "bf16", "fp16"] = Field("float32", description="of training, by autocast")
    accumulate: PositiveInt = Field(1, description="parts that a batch passes in: the same step in less memory")
    checkpoint_activations: bool = Field(False, description="compute the image tower's again in the backward pass")
    compile: bool = Field(False, description="by torch.compile: the head, and the image tower where it is trained")
    deterministic: bool = Field(False, description="only deterministic algorithms; a CPU has no others")
    early_stopping: PositiveInt | None = Field(None, description="epochs without a better val mAP that end training")
    divergence_factor: Annotated[float, Field(gt=1)] = Field(10.0, description="loss over its running median: too much")
    divergence_steps: PositiveInt = Field(20, description="such steps in a row that stop the run")
    checkpoint_every: PositiveInt | None = Field(1000, description="steps of an epoch; one is made at its end anyway")
    tensorboard: bool = Field(False, description="write the run's curves for TensorBoard too")


class EvaluationOptions(Options):
    """How pictures are scored."""

    batch_size: PositiveInt = 64
    views: tuple[View, ...] = Field(("plain",), description="whose probabilities are averaged, e.g. plain and mirrored")


class RunConfig(Options):
    """Everything a run depends on but the machine."""

    knowledge: Path
    preset: str | None = Field(None, description="the recipe that the defaults came from; null: the program's own")
    data: DataOptions = DataOptions()
    backbone: BackboneOptions = BackboneOptions()
    model: HeadOptions = SspaOptions()
    loss: LossOptions = AslOptions()
    training: TrainingOptions = TrainingOptions()
    evaluation: EvaluationOptions = EvaluationOptions()


def resolve_config(
    files: Sequence[Path] = (),
    settings: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> RunConfig:
    """The configuration: what comes later goes before what came earlier.

    Args:
        files: YAML files.
        settings: "model.qsm.layers=2".
        values: by dotted key.
        base: by dotted key, before everything else but the preset.
        preset: the name of a preset, or "none"; see `presets` for what is taken where it is not given.

    Raises:
        UserError: a file that cannot be read, an unknown key (with the nearest valid one), a bad value.
    """
    merged: dict[str, Any] = {}
    for key, value in (base or {}).items():
        _put(merged, key, value)
    for file in files:
        _merge(merged, read_yaml(file), ())
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise UserError(f"--set {setting!r}: write it as key=value, for example --set model.qsm.layers=2")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {setting!r}: the value is not YAML ({error})") from error
        _put(merged, key, value)
    for key, value in (values or {}).items():
        _put(merged, key, value)
    name = preset or preset_of(merged)
    if name is None or name == "none":
        return validated(merged)
    whole: dict[str, Any] = {}
    for tree in (read_yaml(preset_file(name)), merged, {"preset": name}):
        _merge(whole, tree, ())
    return validated(whole)


def validated(tree: Mapping[str, Any]) -> RunConfig:
    """A RunConfig from a nested mapping; its first mistake as one line.

    Raises:
        UserError: see `resolve_config`.
    """
    for section, default in _VARIANTS.items():
        if isinstance(given := tree.get(section, {}), dict):
            tree = {**tree, section: {**default, **given}}
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(_explain(first["type"], first["loc"], first.get("input"), reason)) from error


def differing_keys(one: RunConfig, other: RunConfig) -> list[str]:
    """The dotted keys in which two configurations differ, as far as the result may depend on them."""

    def flat(tree: Any, path: str) -> dict[str, Any]:
        if not isinstance(tree, dict):
            return {path: tree}
        return {key: value for name, child in tree.items() for key, value in flat(child, f"{path}.{name}").items()}

    first, second = (flat(config.model_dump(mode="json"), "") for config in (one, other))
    keys = [key for key in {**first, **second} if first.get(key, ...) != second.get(key, ...)]
    return [key for key in (key.removeprefix(".") for key in keys) if key not in _OF_NO_MATTER]


def setting_keys() -> list[str]:
    """Every key that --set and --config accept, dotted."""
    return sorted(_keys(RunConfig.model_json_schema()))


def _explain(kind: str, location: tuple[int | str, ...], value: Any, message: str) -> str:
    # A discriminated union adds the variant's name to the path; it is no key.
    parts = [str(part) for part in location]
    key = ".".join(part for place, part in enumerate(parts) if not (place == 1 and parts[0] in _VARIANTS))
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(key, setting_keys(), n=3, cutoff=0.5)
        return f"configuration: there is no key {key!r}" + (f"; did you mean {' or '.join(near)}?" if near else "")
    if kind == "missing" and key == "knowledge":
        return "no knowledge file is named: give --knowledge FILE (made by `sspa-knowledge generate`)"
    return f"configuration: {key} = {value!r}: {message}"


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        UserError: it cannot be read, or holds no keys.
    """
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{file}: holds no keys; write for example `training: {{epochs: 6}}`")
    return tree


def _merge(into: dict[str, Any], tree: Mapping[str, Any], path: tuple[str, ...]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            _merge(into, value, (*path, str(key)))
        else:
            _put(into, ".".join((*path, str(key))), value)


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UserError(f"configuration: {dotted!r}: {parent} is a value, not a section")
    tree[last] = value


def _keys(schema: dict[str, Any]) -> set[str]:
    definitions = schema.get("$defs", {})

    def walk(node: dict[str, Any], prefix: str) -> set[str]:
        found: set[str] = set()
        for name, child in node.get("properties", {}).items():
            options = [child, *child.get("anyOf", []), *child.get("oneOf", []), *child.get("allOf", [])]
            sections = [definitions[option["$ref"].rsplit("/", 1)[1]] for option in options if "$ref" in option]
            below = set[str]().union(*(walk(section, f"{prefix}{name}.") for section in sections))
            found |= below or {prefix + name}
        return found

    return walk(schema, "")
