"""`sspa-train runs`: lists, queries and compares runs. Heavy imports happen inside the commands."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sspa.shared.errors import UserError
from sspa.shared.query_options import QuerySeconds
from sspa.shared.tables import number, print_table
from sspa.shared.terminal import output
from sspa.stage2_training.cli.options import AsJson, RunArgument

if TYPE_CHECKING:
    from sspa.stage2_training.runs.difference import ProbabilityDifference, RunDifference
    from sspa.stage2_training.runs.listing import ListedRun


class _ListsByDefault(TyperGroup):
    """`runs`, `runs FOLDER` and `runs --json` are `runs list ...`; a folder called `query` is written ./query."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["list", *args])


runs_app = typer.Typer(
    cls=_ListsByDefault, help="List the runs in a folder, query them in SQL, or show how two of them differ."
)

AsJsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON line per row.")]


@runs_app.command(name="list")
def list_(
    folder: Annotated[Path, typer.Argument(help="Searched recursively.")] = Path("runs"),
    as_json: AsJsonLines = False,
) -> None:
    """List the runs below a folder with their main results (the default: `sspa-train runs [FOLDER]`)."""
    from sspa.stage2_training.runs.listing import list_runs

    runs = list_runs(folder)
    if as_json:
        for run in runs:
            output.print(json.dumps(asdict(run)), markup=False)
        return
    if not runs:
        raise UserError(f"{folder}: holds no run; make one with `sspa-train run`")
    _show(runs)


@runs_app.command()
def query(
    sql: Annotated[str, typer.Argument(help="Tables: runs, per_class, epochs.")],
    folder: Annotated[Path, typer.Option(help="Searched recursively.")] = Path("runs"),
    as_json: AsJsonLines = False,
    seconds: QuerySeconds = 60,
) -> None:
    """Query the runs below a folder in SQL; `SELECT * FROM runs` shows the columns."""
    from sspa.stage2_training.runs.listing import query_runs

    columns, rows = query_runs(folder, sql, seconds)
    if as_json:
        for row in rows:
            output.print(json.dumps(dict(zip(columns, row, strict=True)), default=str), markup=False)
        return
    print_table(columns, [rows])


@runs_app.command()
def diff(
    one: RunArgument,
    other: Annotated[Path, typer.Argument(metavar="RUN", help="The run to compare it with.")],
    as_json: AsJson = False,
) -> None:
    """Show how two finished runs differ: configuration, environment, knowledge, data, metrics, probabilities."""
    from sspa.stage2_training.runs.difference import difference
    from sspa.stage2_training.runs.run_folder import open_run_folder

    found = difference(open_run_folder(one), open_run_folder(other))
    if as_json:
        output.print_json(json.dumps(asdict(found)))
        return
    if found.empty:
        output.print("no differences: configuration, environment, knowledge, data, metrics and probabilities are equal")
        return
    _show_difference(found, one, other)


def _show_difference(found: "RunDifference", one: Path, other: Path) -> None:
    names = (str(one), str(other)) if one.name == other.name else (one.name, other.name)
    for part in ("configuration", "environment", "knowledge", "data", "figures"):
        pairs = getattr(found, part)
        if pairs:
            print_table((part, *names), [[(key, *map(_shortened, pair)) for key, pair in pairs.items()]])
        else:
            output.print(f"{part}: equal")
    if found.probabilities is None:
        why = "a refit scores nothing" if "trained on" in found.data else "the runs scored different images or labels"
        output.print(f"probabilities: not compared, since {why}")
        return
    columns = ("probabilities", "largest", "median", "mean", "the largest at")
    rows = [
        (branch, *(f"{value:.2g}" for value in (apart.largest, apart.median, apart.mean)), _place_of(apart))
        for branch, apart in found.probabilities.items()
    ]
    print_table(columns, [rows], left=(columns[0], columns[-1]))


def _place_of(apart: "ProbabilityDifference") -> str:
    return f"{apart.image}, {apart.label}: {apart.values[0]:.4f}, {apart.values[1]:.4f}"


def _shortened(value: object, most: int = 120) -> str | None:
    text = " / ".join(value) if isinstance(value, tuple) else str(value)
    return None if value is None else text if len(text) <= most else f"{text[: most - 3]}..."


def _show(runs: "list[ListedRun]") -> None:
    columns = ("run", "data", "protocol", "head", "backbone", "seed", "best epoch", "val", "test mAP", "s")
    rows = []
    for run in runs:
        if run.state == "damaged":
            continue
        best = (
            f"{run.best_epoch}/{run.epochs}" if run.state == "finished" else f"unfinished, {run.epochs_done or 0} done"
        )
        name = f"{run.run} (refit)" if run.refit_of else run.run
        named = (name, run.data, run.protocol, run.head, run.backbone, run.seed, best)
        test = number(run.test_map) if run.measured in (None, "test") else f"{number(run.test_map)} ({run.measured})"
        if run.folds_map is not None:
            test += f"; {number(run.folds_map)} by folds"
        rows.append((*named, number(run.val_map), test, number(run.seconds, 0)))
    print_table(columns, [rows], left=columns[:5])
    for run in runs:
        if run.state == "damaged":
            output.print(f"damaged: {run.run}: {run.problem}", markup=False)
