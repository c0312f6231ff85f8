"""`sspa-train compare`. Heavy imports happen inside the command."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.holding import held
from sspa.shared.terminal import loading, say
from sspa.stage2_training.cli.options import (
    ConfigFiles,
    Data,
    Device,
    Knowledge,
    Protocol,
    Root,
    Settings,
    command_device,
    given_settings,
)

compare_app = typer.Typer()


@compare_app.command()
def compare(
    comparison: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE.yaml",
            help="Ready-made: ablation, baselines, few-shot, knowledge, partial-labels, unseen-labels.",
        ),
    ],
    knowledge: Knowledge = None,
    data: Data = None,
    root: Root = None,
    protocol: Protocol = None,
    out: Annotated[Path | None, typer.Option(help="The comparison's folder; finished runs in it are kept.")] = None,
    config: ConfigFiles = None,
    set_: Settings = None,
    variants: Annotated[str | None, typer.Option(help="Only these variants, separated by commas.")] = None,
    conditions: Annotated[str | None, typer.Option(help="Only these conditions, separated by commas.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds to use instead, as in 0,1,2.")] = None,
    reference: Annotated[str | None, typer.Option(help="The variant to compare the others with.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time. [default: one per GPU]")] = None,
    reports: Annotated[bool, typer.Option("--reports", help="Write report.html into each run's folder too.")] = False,
    device: Device = "auto",
) -> None:
    """Run variants over seeds and compare them, with confidence intervals; runs only what is missing."""
    from sspa.stage2_training.comparison.definition import read_comparison
    from sspa.stage2_training.comparison.plan import finished_runs, planned_work
    from sspa.stage2_training.runs.inputs import open_inputs
    from sspa.stage2_training.runs.run_folder import RunFolder

    whole = read_comparison(comparison)
    defined = (whole if reference is None else whole.with_reference(reference)).only(
        *(None if names is None else [name.strip() for name in names.split(",")] for names in (variants, conditions))
    )
    if seeds is not None:
        defined = defined.with_seeds(seeds)
    given = given_settings(knowledge, data, root, protocol)
    on = "" if defined.data else f"-{Path(data or 'scenes').name.removesuffix('.parquet')}"
    folder = out or Path("runs") / f"compare-{Path(comparison).stem}{on}"
    with held(folder, "wait for it, or compare into another --out"):
        work = planned_work(defined, folder, config or [], set_ or [], given)
        if work.left:
            open_inputs(work.left[0][0].config)  # a mistake in them would end the first run
        with loading():
            from sspa.stage2_training.comparison.at_once import jobs_of
            from sspa.stage2_training.comparison.compare import compare as run_comparison
            from sspa.stage2_training.comparison.page import write_comparison_page
            from sspa.stage2_training.comparison.rows import write_rows
            from sspa.stage2_training.comparison.table import show_comparison
            from sspa.stage2_training.report.page import write_report

        where = command_device(device)
        rows, failed = run_comparison(work, defined.reference, folder / "logs", where, jobs_of(jobs, where))
        write_rows(rows, folder / "comparison.parquet")
        finished = finished_runs(work.planned)
        for made in map(RunFolder, [run.path for run in finished] if reports else []):
            if not made.file("report.html").exists():
                say(f"report: {write_report(made, where)}")
        command = shlex.join(["sspa-train", *sys.argv[1:]])
        page = write_comparison_page(defined, rows, finished, command, folder / "comparison.html")
    show_comparison(defined, rows)
    say(f"as a page: {page}; for DuckDB: {folder / 'comparison.parquet'}")
    if failed:
        raise UserError(
            f"{len(failed)} runs failed, as reported above ({'; '.join(failed)}); the table is of the others. "
            "Run the same command to retry them"
        )
