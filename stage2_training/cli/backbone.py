"""`sspa-train backbone ...`: what the backbones cost. Heavy imports happen inside the commands."""

from typing import Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.terminal import output, say

backbone_app = typer.Typer(help="The two towers under the model.", no_args_is_help=True)

# The published family at the resolutions people use; weights do not change what a step costs.
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
    tower: Annotated[str, typer.Option(help="What of the image tower is trained: frozen, last:K, all.")] = "all",
    batch: Annotated[int, typer.Option(help="Pictures in the step.")] = 2,
    threads: Annotated[int, typer.Option(help="Of torch; more than there are idle cores is slower than one.")] = 1,
    labels: Annotated[str, typer.Option(help="A label set by name, or a label file.")] = "voc",
) -> None:
    """A table: one training step of the full model on each backbone (random weights, float32, on the CPU)."""
    from sspa.stage2_training.bench.step_cost import StepRequest, measure_apart

    requests = [StepRequest(*spec_and_size(row), tower, batch, threads, labels) for row in rows or _ROWS]
    output.print(
        f"| backbone | size | regions | trained (tower {tower}) | load, s | step of {batch}, s | peak memory, GB |"
    )
    output.print("|---|---|---|---|---|---|---|")
    failed = []
    for request in requests:
        size = "x".join(map(str, request.size))
        try:
            found = measure_apart(request)
        except UserError as error:
            failed.append(request.spec)
            say(str(error))
            continue
        output.print(
            f"| {request.spec} | {size} | {found.regions} | {found.trained / 1e6:.1f} M | {found.load_seconds:.1f} "
            f"| {found.step_seconds:.1f} | {found.peak_bytes / 1e9:.1f} |"
        )
    if failed:
        raise UserError(f"{len(failed)} of {len(requests)} backbones could not be measured: {', '.join(failed)}")


def spec_and_size(row: str) -> tuple[str, tuple[int, int]]:
    """ "NAME@HEIGHTxWIDTH" in its parts.

    Raises:
        UserError: it is not written so.
    """
    spec, at, size = row.rpartition("@")
    height, _, width = size.partition("x")
    if not at or not spec or not all(side.isdecimal() for side in size.split("x")) or size.count("x") > 1:
        raise UserError(f"{row}: write NAME@SIZE or NAME@HEIGHTxWIDTH, such as open_clip:ViT-B-16@448")
    return spec, (int(height), int(width or height))
