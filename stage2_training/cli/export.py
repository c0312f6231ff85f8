"""The subcommands of `sspa-train` that export a run: a file, a folder, a page. Heavy imports happen inside."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.terminal import loading, output
from sspa.stage2_training.cli.options import Device, RunArgument, command_device

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
        list[str] | None, typer.Option(help="An image to compare on; the run's own by default. Repeatable.")
    ] = None,
) -> None:
    """Export the model as one file, images in and probabilities out, and compare it with the run on real images."""
    _check(run_path)
    with loading():
        from sspa.stage2_training.export.export import export_run

    output.print(str(export_run(run_path, to.value, out, check or [])), markup=False)


@export_app.command()
def package(
    run_path: RunArgument,
    out: Annotated[Path, typer.Option(help="The new folder.")],
) -> None:
    """Write a folder to share: weights, configuration, labels, knowledge, thresholds and a model card."""
    _check(run_path)
    with loading():
        from sspa.stage2_training.export.package import package_run

    output.print(str(package_run(run_path, out)), markup=False)


@export_app.command()
def report(
    run_paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders that `sspa-train run` wrote.")],
    out: Annotated[Path | None, typer.Option(help="The page for several runs; side-by-side.html by default.")] = None,
    device: Device = "auto",
) -> None:
    """Rewrite the report of one run, or compare several runs side by side on one page."""
    from sspa.stage2_training.runs.run_folder import open_run_folder

    folders = [open_run_folder(path) for path in run_paths]
    with loading():
        from sspa.stage2_training.report.page import write_report
        from sspa.stage2_training.report.side_by_side import write_side_by_side

    if len(run_paths) > 1:
        page = write_side_by_side(run_paths, out or Path("side-by-side.html"))
    elif out is not None:
        raise UserError("--out: is for several runs; the report of one is report.html in its folder")
    else:
        page = write_report(folders[0], command_device(device))
    output.print(str(page), markup=False)


def _check(run_path: Path) -> None:
    from sspa.stage2_training.runs.run_folder import open_run_folder

    open_run_folder(run_path).check_loadable()
