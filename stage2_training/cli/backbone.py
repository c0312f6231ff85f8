"""`sspa-train backbone`: cost of backbones, conversion of weights. Heavy imports happen inside the commands."""

from pathlib import Path
from typing import Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.tables import markdown_row, markdown_table
from sspa.shared.terminal import loading, output, say

backbone_app = typer.Typer(help="The cost of backbones, and conversion of weights files.", no_args_is_help=True)

# The published models at common resolutions; weights do not affect the cost of a step.
_ROWS = (
    "embedded@260",
    "open_clip:ViT-B-32@224",
    "open_clip:ViT-B-16@224",
    "open_clip:ViT-B-16@448",
    "open_clip:ViT-L-14@224",
    "open_clip:RN50@448",
    "open_clip:RN101@448",
)


@backbone_app.command()
def cost(
    rows: Annotated[
        list[str] | None, typer.Argument(help="NAME@SIZE or NAME@HEIGHTxWIDTH; seven common ones by default.")
    ] = None,
    tower: Annotated[str, typer.Option(help="Which part of the image tower is trained: frozen, last:K, all.")] = "all",
    batch: Annotated[int, typer.Option(help="Images in the step.")] = 2,
    threads: Annotated[int, typer.Option(help="Threads of torch; more than idle cores is slower than one.")] = 1,
    labels: Annotated[str, typer.Option(help="A label set by name, or a label file.")] = "voc",
) -> None:
    """A table: one training step of the full model on each backbone (random weights, float32, on the CPU)."""
    from sspa.stage2_training.bench.step_request import StepRequest, measure_apart, spec_and_size

    requests = [StepRequest(*spec_and_size(row), tower, batch, threads, labels) for row in rows or _ROWS]
    columns = (
        "backbone", "size", "regions", f"trained (tower {tower})", "load, s", f"step of {batch}, s", "peak memory, GB"
    )  # fmt: skip
    # Printed row by row: each takes up to a minute.
    output.print(markdown_table(columns, []), markup=False)
    failed = []
    for request in requests:
        size = "x".join(map(str, request.size))
        try:
            found = measure_apart(request)
        except UserError as error:
            failed.append(request.spec)
            say(str(error))
            continue
        cells = (request.spec, size, found.regions, f"{found.trained / 1e6:.1f} M", f"{found.load_seconds:.1f}")
        costs = (f"{found.step_seconds:.1f}", f"{found.peak_bytes / 1e9:.1f}")
        output.print(markdown_row((*cells, *costs)), markup=False)
    if failed:
        raise UserError(f"{len(failed)} of {len(requests)} backbones could not be measured: {', '.join(failed)}")


@backbone_app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A weights file: .pt, .bin, or a TorchScript archive.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
) -> None:
    """Convert a weights file to safetensors, which hold numbers only."""
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    with loading():
        from sspa.stage2_training.backbones.weight_files import convert_weights_file

    convert_weights_file(file, target)
    say(f"{target}: written; use it with --set backbone.weights={target}")
