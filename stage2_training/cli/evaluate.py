"""`sspa-train evaluate`. Heavy imports happen inside the command."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.terminal import loading, output
from sspa.stage2_training.cli.options import (
    AsJson,
    Device,
    Protocol,
    Root,
    RunArgument,
    ScoringPrecision,
    Thresholds,
    command_device,
)

evaluate_app = typer.Typer()


class Unreadable(StrEnum):
    """What to do about images that are missing or cannot be read."""

    as_configured = "as-configured"
    stop = "stop"
    leave_out = "leave-out"


_IMAGES_FOR_DELETION = 50


@evaluate_app.command()
def evaluate(
    run_path: RunArgument,
    data: Annotated[str | None, typer.Option(help="Another data set or manifest; the run's own by default.")] = None,
    root: Root = None,
    protocol: Protocol = None,
    split: Annotated[
        str | None, typer.Option(help="Which split to score. [default: test, or val if the data has no test]")
    ] = None,
    knowledge: Annotated[
        Path | None, typer.Option(help="Knowledge about labels other than those the run was trained on.")
    ] = None,
    thresholds: Annotated[
        Thresholds,
        typer.Option(
            help="The protocol's fixed one; tuned on this data's val, one for all or each its own; or the run's own."
        ),
    ] = Thresholds.fixed,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap samples for intervals of mAP; 0 for none.")] = 0,
    unreadable: Annotated[
        Unreadable, typer.Option(help="What to do about images that are missing or cannot be read.")
    ] = Unreadable.as_configured,
    explanations: Annotated[
        bool, typer.Option("--explanations", help="Instead, measure how faithful the region maps are; needs boxes.")
    ] = False,
    deletion_images: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="With --explanations: images for deletion and insertion, 70 scorings each. "
            f"[default: {_IMAGES_FOR_DELETION}]",
        ),
    ] = None,
    former_images: Annotated[int | None, typer.Option("--deletion-pictures", min=0, hidden=True)] = None,
    as_json: AsJson = False,
    precision: Annotated[
        ScoringPrecision, typer.Option(help="Precision of the image tower; auto: the one the run scored itself with.")
    ] = ScoringPrecision.auto,
    device: Device = "auto",
) -> None:
    """Score a trained run on a split, per branch; for labels it has never seen, add --knowledge."""
    images = deletion_images if deletion_images is not None else former_images
    if images is not None and not explanations:
        raise UserError("--deletion-images: belongs to --explanations, which is missing")
    if explanations and (thresholds is not Thresholds.fixed or resamples):
        option = "--resamples" if resamples else "--thresholds"
        raise UserError(f"{option}: has no effect with --explanations, which measures maps; leave one of them out")
    from sspa.stage2_training.runs.inputs import check_held_out, scored_inputs
    from sspa.stage2_training.runs.run_folder import open_run_folder

    folder = open_run_folder(run_path)
    folder.check_loadable()
    leave_out = None if unreadable is Unreadable.as_configured else unreadable is Unreadable.leave_out
    scored = scored_inputs(folder, data, root, knowledge, leave_out, protocol)
    if split is not None:
        scored.dataset.split(split)
    tuning = ("val",) if thresholds in (Thresholds.one, Thresholds.each) else ()
    check_held_out(folder, scored.dataset, split or scored.dataset.measured, *tuning)
    if explanations:
        with loading():
            from sspa.stage2_training.explanation.table import show_faithfulness

        count = _IMAGES_FOR_DELETION if images is None else images
        show_faithfulness(folder, scored, split, count, as_json, str(command_device(device)))
        return
    with loading():
        from sspa.stage2_training.inference.evaluate import evaluate_run

    where = command_device(device)
    name, metrics, intervals = evaluate_run(folder, scored, split, where, thresholds.value, resamples, precision.value)
    if as_json:
        found = {branch: figures.to_dict() for branch, figures in metrics.items()}
        for branch, interval in intervals.items():
            found[branch]["mAP_interval"] = asdict(interval)
        output.print_json(json.dumps(found))
        return
    from sspa.stage2_training.cli.metrics_table import show_metrics

    show_metrics(name, metrics, scored.dataset.protocol.headline, folder.record().data.unseen)
    for branch, interval in intervals.items():
        output.print(f"{branch}: mAP {interval}", markup=False)
