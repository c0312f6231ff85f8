"""`sspa-train`: train, evaluate and use the model. Heavy imports happen inside the commands."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sspa.shared.terminal import output, run_command, say
from sspa.stage2_training.backbone_commands import backbone_app
from sspa.stage2_training.data_commands import data_app
from sspa.stage2_training.use_commands import Device, RunArgument, use_app


class Thresholds(StrEnum):
    """From which probability a label counts as predicted."""

    fixed = "fixed"
    one = "one"
    each = "each"


app = typer.Typer(
    help="Stage two: train and evaluate SSPA with the knowledge that sspa-knowledge wrote.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Root = Annotated[Path | None, typer.Option(help="The data set's folder; `scenes` needs none.")]


@app.command()
def run(
    knowledge: Annotated[Path | None, typer.Option(help="The file that sspa-knowledge wrote.")] = None,
    data: Annotated[str | None, typer.Option(help="A data set by name, or a manifest (*.parquet).")] = None,
    root: Root = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; a new one under runs/ by default.")] = None,
    config: Annotated[list[Path] | None, typer.Option(help="A YAML file of settings; may be repeated.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, as in model.qsm.layers=2.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training pictures.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    device: Device = "auto",
) -> None:
    """Train on train, choose the best epoch on val, evaluate on test once, and leave a run folder."""
    from sspa.stage2_training.configuration import resolve_config
    from sspa.stage2_training.report.page import write_report
    from sspa.stage2_training.training.run import choose_device
    from sspa.stage2_training.training.run import run as train

    options = {
        "knowledge": knowledge,
        "data.name": data,
        "data.root": root,
        "training.epochs": epochs,
        "training.seed": seed,
    }
    given = {key: value for key, value in options.items() if value is not None}
    resolved = resolve_config(config or [], set_ or [], given)
    chosen = choose_device(device)
    result = train(resolved, out, chosen)
    show_metrics("test", {"untrained": result.untrained["both"], **result.test})
    say(f"best epoch on val: {result.best_epoch}; run folder: {result.folder.path}")
    say(f"report: {write_report(result.folder, chosen)}")


@app.command()
def evaluate(
    run_path: RunArgument,
    data: Annotated[str | None, typer.Option(help="Another data set or manifest; the run's own by default.")] = None,
    root: Root = None,
    split: Annotated[str, typer.Option(help="Which split to score.")] = "test",
    knowledge: Annotated[
        Path | None, typer.Option(help="Knowledge about other labels than the run was trained on.")
    ] = None,
    thresholds: Annotated[
        Thresholds, typer.Option(help="The protocol's; one tuned on val; or one for each label, tuned on val.")
    ] = Thresholds.fixed,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap samples for intervals of mAP; 0 for none.")] = 0,
    explanations: Annotated[
        bool, typer.Option("--explanations", help="Measure instead how faithful the region maps are; needs boxes.")
    ] = False,
    deletion_pictures: Annotated[
        int, typer.Option(min=0, help="With --explanations: pictures for deletion and insertion, 70 scorings each.")
    ] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print every figure as JSON.")] = False,
    device: Device = "auto",
) -> None:
    """Score a trained run on a split, each branch apart; labels that it never saw come with --knowledge."""
    from sspa.stage2_training.training.evaluate import evaluate_run
    from sspa.stage2_training.training.run import choose_device

    if explanations:
        from sspa.stage2_training.explanation.table import show_faithfulness

        show_faithfulness(run_path, data, root, split, deletion_pictures, as_json, device)
        return
    chosen = choose_device(device)
    metrics, intervals = evaluate_run(run_path, data, root, split, knowledge, chosen, thresholds.value, resamples)
    if as_json:
        found = {branch: figures.to_dict() for branch, figures in metrics.items()}
        for branch, interval in intervals.items():
            found[branch]["mAP_interval"] = asdict(interval)
        output.print_json(json.dumps(found))
        return
    show_metrics(split, metrics)
    for branch, interval in intervals.items():
        output.print(f"{branch}: mAP {interval}", markup=False)


@app.command()
def compare(
    comparison: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help="Ready-made: baselines, ablation.")],
    knowledge: Annotated[Path | None, typer.Option(help="The file that sspa-knowledge wrote.")] = None,
    data: Annotated[str | None, typer.Option(help="A data set by name, or a manifest (*.parquet).")] = None,
    root: Root = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the comparison; finished runs in it are kept.")] = None,
    config: Annotated[list[Path] | None, typer.Option(help="A YAML file of settings; may be repeated.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value for all runs.")] = None,
    variants: Annotated[str | None, typer.Option(help="Only these variants, separated by commas.")] = None,
    device: Device = "auto",
) -> None:
    """Run variants over seeds and set them against each other, with intervals; runs only what is missing."""
    from sspa.stage2_training.comparison.compare import compare as run_comparison
    from sspa.stage2_training.comparison.definition import read_comparison
    from sspa.stage2_training.comparison.table import show_comparison
    from sspa.stage2_training.training.run import choose_device

    defined = read_comparison(comparison)
    if variants is not None:
        defined = defined.only([name.strip() for name in variants.split(",")])
    options = {"knowledge": knowledge, "data.name": data, "data.root": root}
    given = {key: value for key, value in options.items() if value is not None}
    folder = out or Path("runs") / f"compare-{Path(comparison).stem}-{data or 'scenes'}"
    rows = run_comparison(defined, folder, config or [], set_ or [], given, choose_device(device))
    show_comparison(defined, rows)
    say(f"also as a table for DuckDB: {folder / 'comparison.parquet'}")


def show_metrics(title: str, metrics: dict[str, Any]) -> None:
    """A table of the headline figures, one row a branch, in percent."""
    from rich import box
    from rich.table import Table

    from sspa.stage2_training.evaluation.protocols import get_protocol

    first = next(iter(metrics.values()))
    # What the field quotes for this data comes first: mA and its kin for pedestrian attributes.
    always = ("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1", f"CF1@{first.top_k}", f"OF1@{first.top_k}")
    columns = list(dict.fromkeys((*get_protocol(first.protocol).headline, *always)))
    table = Table(
        title=f"{title}: {first.images} pictures, protocol {first.protocol} ({first.protocol_hash})",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, figures in metrics.items():
        table.add_row(name, *(f"{100 * figures.figure(column):.2f}" for column in columns))
    output.print(table)
    for description in sorted({figures.thresholds for figures in metrics.values()}):
        output.print(f"thresholds: {description}", markup=False)
    if first.absent:
        output.print(f"no positives, so no AP and in no mean: {', '.join(first.absent)}", markup=False)


app.add_typer(use_app)
app.add_typer(data_app, name="data")
app.add_typer(backbone_app, name="backbone")


def main() -> None:
    """The console script."""
    run_command(app)
