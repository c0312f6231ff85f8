"""Options shared by several commands of `sspa-train`, and their conversion to values."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sspa.shared.errors import UserError
from sspa.stage2_training.compute.device_name import check_device_name

if TYPE_CHECKING:
    import torch


class Thresholds(StrEnum):
    """The probability from which a label counts as predicted."""

    fixed = "fixed"
    one = "one"
    each = "each"
    own = "own"


class ScoringPrecision(StrEnum):
    """The precision of the image tower when it scores images."""

    auto = "auto"
    float32 = "float32"
    bf16 = "bf16"
    fp16 = "fp16"


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `sspa-train run` wrote.")]
Device = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.", callback=check_device_name),
]
Knowledge = Annotated[Path | None, typer.Option(help="The knowledge file that sspa-knowledge wrote.")]
Data = Annotated[str | None, typer.Option(help="A data set by name, or a manifest (*.parquet).")]
Root = Annotated[Path | None, typer.Option(help="The data set's folder; `scenes` needs none.")]
Protocol = Annotated[str | None, typer.Option(help="One of the data set's protocols, or a file of your own (*.yaml).")]
ConfigFiles = Annotated[list[Path] | None, typer.Option("--config", help="A YAML file of settings; repeatable.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key=value, as in model.qsm.layers=2; repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Threshold = Annotated[
    str,
    typer.Option(
        help="Probability from which a label counts as predicted; `tuned`: per label, as tuned on val or by folds."
    ),
]
OtherKnowledge = Annotated[
    Path | None, typer.Option("--knowledge", help="Other labels, with the descriptions that sspa-knowledge wrote.")
]
OtherLabels = Annotated[
    str | None, typer.Option("--labels", help='Other labels, by name only: "red umbrella,dog", or a label file.')
]
AllowDownload = Annotated[
    bool, typer.Option("--allow-download", help="Download the model from the hub that the run names, if need be.")
]
Describe = Annotated[bool, typer.Option("--describe", help="With --labels: first have sspa-knowledge describe each.")]


# SSPA without what takes most of the time, as in the preset embedded-photos-fast: for commands that train often,
# unless the user says something about the model.
FAST_MODEL = (
    # Narrower than any CLIP, so that there is a learned map into it: without that, only scalars would be left to train.
    "model.width=256",
    "model.cap.learned=false",
    "model.dsf.enabled=false",
    "model.qsm.kind=none",
    "model.gdma.v_to_s=false",
    "model.gdma.s_to_v=false",
)


def command_device(wanted: str) -> "torch.device":
    """The device that a command computes on, with this process prepared for it; see `prepare_device`.

    Raises:
        UserError: see `choose_device`.
    """
    from sspa.stage2_training.compute.device import choose_device, prepare_device

    device = choose_device(wanted)
    prepare_device(device)
    return device


def check_prediction_file(out: Path, option: str = "--out") -> None:
    """Refuse a file that is there, or whose ending names no form that is written.

    Raises:
        UserError: it exists, or ends otherwise than in .parquet, .csv or .jsonl.
    """
    from sspa.stage2_training.prediction.parquet import parts_of

    if out.suffix not in (".parquet", ".csv", ".jsonl"):
        raise UserError(
            f"{option} {out}: the ending says the form; take .parquet, .csv or .jsonl (`data export` writes others)"
        )
    # Parts beside a finished file are what a killed process did not come to delete; whoever has the model does.
    if out.exists() and not parts_of(out).is_dir():
        raise UserError(f"{out}: exists already; choose another name with {option}, or remove it")


def given_settings(
    knowledge: Path | None, data: str | None, root: Path | None, protocol: str | None = None, **others: Any
) -> dict[str, Any]:
    """Command line options as settings, by dotted key; options that were not given are left out.

    Args:
        others: by key with `__` in place of the dot.
    """
    options = {"knowledge": knowledge, "data.name": data, "data.root": root, "data.protocol": protocol}
    options |= {key.replace("__", "."): value for key, value in others.items()}
    return {key: value for key, value in options.items() if value is not None}
