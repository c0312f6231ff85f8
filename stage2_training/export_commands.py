"""The commands of `sspa-train` that carry a run elsewhere. Heavy imports happen inside the commands."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sspa.shared.terminal import output
from sspa.stage2_training.use_commands import RunArgument

export_app = typer.Typer()


class To(StrEnum):
    """What the exported file is for."""

    onnx = "onnx"
    torch = "torch"


@export_app.command()
def export(
    run_path: RunArgument,
    to: Annotated[To, typer.Option(help="onnx: any ONNX runtime; torch: torch.export.load.")],
    out: Annotated[Path | None, typer.Option(help="The file; model.onnx or model.pt2 in RUN by default.")] = None,
    check: Annotated[
        list[str] | None, typer.Option(help="Pictures to compare on; the run's own by default. May be repeated.")
    ] = None,
) -> None:
    """Write the model as one file, pictures in and probabilities out, and compare it with the run on real pictures."""
    from sspa.stage2_training.export.export import export_run

    output.print(str(export_run(run_path, to.value, out, check or [])), markup=False)


@export_app.command()
def package(
    run_path: RunArgument,
    out: Annotated[Path, typer.Option(help="The new folder.")],
) -> None:
    """Write a folder to hand over: weights, configuration, labels, knowledge, thresholds and a model card."""
    from sspa.stage2_training.export.package import package_run

    output.print(str(package_run(run_path, out)), markup=False)
