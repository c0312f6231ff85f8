"""`sspa-train`: train, evaluate and use the model. Heavy imports happen inside the commands."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from math import nan
from pathlib import Path
from typing import Annotated, Any

import typer

from sspa.shared.errors import UserError
from sspa.shared.terminal import output, run_command, say
from sspa.stage2_training.cli.backbone import backbone_app
from sspa.stage2_training.cli.bench import bench_app
from sspa.stage2_training.cli.data import data_app
from sspa.stage2_training.cli.export import export_app
from sspa.stage2_training.cli.runs import runs_app
from sspa.stage2_training.cli.use import Device, RunArgument, use_app


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
    preset: Annotated[
        str | None,
        typer.Option(
            help="A recipe, which --config and --set win over; `none`: the program's own defaults. Not given: the "
            "recipe of --data; on the embedded backbone `embedded-photos`, and for its scenes the defaults."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on where a run stopped: in --out, or in the newest under runs/ with these settings."
        ),
    ] = False,
    device: Device = "auto",
) -> None:
    """Train on train, choose the best epoch on val, evaluate on test once, and leave a run folder.

    Under `torchrun --nproc-per-node=N` the batches are split over N processes.
    """
    from sspa.stage2_training.compute.device import choose_device
    from sspa.stage2_training.compute.processes import processes_of_environment
    from sspa.stage2_training.config.run_config import resolve_config
    from sspa.stage2_training.report.page import write_report
    from sspa.stage2_training.runs.resuming import finished_run
    from sspa.stage2_training.training.run import run as train

    options = {
        "knowledge": knowledge,
        "data.name": data,
        "data.root": root,
        "training.epochs": epochs,
        "training.seed": seed,
    }
    given = {key: value for key, value in options.items() if value is not None}
    chosen = choose_device(device)
    with processes_of_environment(chosen) as processes:
        resolved = processes.everywhere(lambda: resolve_config(config or [], set_ or [], given, preset=preset))
        if resolved.preset is not None:
            say(f"recipe: preset {resolved.preset} (--preset none leaves it out)")
        if resume and (finished := processes.first(lambda: finished_run(out, resolved))) is not None:
            say(f"{finished.path}: this run is finished; there is nothing to train")
            if not processes.rank and not finished.file("report.html").exists():
                say(f"report: {write_report(finished, chosen)}")
            return
        result = train(resolved, out, chosen, resume, processes)
    if processes.rank:
        return
    unseen = result.folder.read_json("run.json")["data"]["unseen"]
    show_metrics("test", {"untrained": result.untrained["both"], **result.test}, unseen)
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
    from sspa.stage2_training.compute.device import choose_device
    from sspa.stage2_training.inference.evaluate import evaluate_run
    from sspa.stage2_training.runs.run_folder import open_run_folder

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
    show_metrics(split, metrics, open_run_folder(run_path).read_json("run.json")["data"].get("unseen", ()))
    for branch, interval in intervals.items():
        output.print(f"{branch}: mAP {interval}", markup=False)


@app.command()
def compare(
    comparison: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE.yaml",
            help="Ready-made: ablation, baselines, few-shot, knowledge, partial-labels, unseen-labels.",
        ),
    ],
    knowledge: Annotated[Path | None, typer.Option(help="The file that sspa-knowledge wrote.")] = None,
    data: Annotated[str | None, typer.Option(help="A data set by name, or a manifest (*.parquet).")] = None,
    root: Root = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the comparison; finished runs in it are kept.")] = None,
    config: Annotated[list[Path] | None, typer.Option(help="A YAML file of settings; may be repeated.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value for all runs.")] = None,
    variants: Annotated[str | None, typer.Option(help="Only these variants, separated by commas.")] = None,
    conditions: Annotated[str | None, typer.Option(help="Only these conditions, separated by commas.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Other seeds, as in 0,1,2.")] = None,
    reference: Annotated[str | None, typer.Option(help="The variant that the others are set against.")] = None,
    device: Device = "auto",
) -> None:
    """Run variants over seeds and set them against each other, with intervals; runs only what is missing."""
    from sspa.stage2_training.comparison.compare import compare as run_comparison
    from sspa.stage2_training.comparison.definition import read_comparison
    from sspa.stage2_training.comparison.page import write_comparison_page
    from sspa.stage2_training.comparison.rows import write_rows
    from sspa.stage2_training.comparison.table import show_comparison
    from sspa.stage2_training.compute.device import choose_device

    whole = read_comparison(comparison)
    defined = (whole if reference is None else whole.with_reference(reference)).only(
        *(None if names is None else [name.strip() for name in names.split(",")] for names in (variants, conditions))
    )
    if seeds is not None:
        defined = defined.with_seeds(seeds)
    options = {"knowledge": knowledge, "data.name": data, "data.root": root}
    given = {key: value for key, value in options.items() if value is not None}
    on = "" if defined.data else f"-{Path(data or 'scenes').name.removesuffix('.parquet')}"
    folder = out or Path("runs") / f"compare-{Path(comparison).stem}{on}"
    rows, failed = run_comparison(defined, folder, config or [], set_ or [], given, choose_device(device))
    write_rows(rows, folder / "comparison.parquet")
    page = write_comparison_page(defined, rows, folder / "comparison.html")
    show_comparison(defined, rows)
    say(f"as a page: {page}; for DuckDB: {folder / 'comparison.parquet'}")
    if failed:
        raise UserError(
            f"{len(failed)} runs failed, as said above ({'; '.join(failed)}); the table is of the others. "
            "The same command tries them again"
        )


def show_metrics(title: str, metrics: dict[str, Any], unseen: Sequence[str] = ()) -> None:
    """A table of the headline figures, one row a branch, in percent; mAP of seen and unseen labels apart."""
    from rich import box
    from rich.table import Table

    from sspa.stage2_training.evaluation.protocols import get_protocol

    first = next(iter(metrics.values()))
    # What the field quotes for this data comes first: mA and its kin for pedestrian attributes.
    always = ("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1", f"CF1@{first.top_k}", f"OF1@{first.top_k}")
    columns = list(dict.fromkeys((*get_protocol(first.protocol).headline, *always)))
    parts = {
        f"mAP {name}": [key for key in first.per_class if (key in unseen) == (name == "unseen")]
        for name in ("seen", "unseen")
        if any(key in unseen for key in first.per_class)
    }
    table = Table(
        title=f"{title}: {first.images} pictures, protocol {first.protocol} ({first.protocol_hash})",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("")
    for column in (*parts, *columns):
        table.add_column(column, justify="right")
    for name, figures in metrics.items():
        values = [sum(figures.per_class[key] for key in keys) / len(keys) if keys else nan for keys in parts.values()]
        values += [figures.figure(column) for column in columns]
        table.add_row(name, *(f"{100 * value:.2f}" for value in values))
    output.print(table)
    for description in sorted({figures.thresholds for figures in metrics.values()}):
        output.print(f"thresholds: {description}", markup=False)
    if first.absent:
        output.print(f"no positives, so no AP and in no mean: {', '.join(first.absent)}", markup=False)


app.add_typer(use_app)
app.add_typer(bench_app)
app.add_typer(export_app)
app.add_typer(data_app, name="data")
app.add_typer(backbone_app, name="backbone")
app.add_typer(runs_app, name="runs")


def main() -> None:
    """The console script."""
    run_command(app)
