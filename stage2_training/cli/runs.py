"""`sspa-train runs`: what was trained. Heavy imports happen inside the commands."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sspa.shared.errors import UserError
from sspa.shared.tables import number, print_table
from sspa.shared.terminal import output

if TYPE_CHECKING:
    from sspa.stage2_training.runs.listing import ListedRun


class _ListsByDefault(TyperGroup):
    """`runs`, `runs FOLDER` and `runs --json` are `runs list ...`; a folder called `query` is written ./query."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["list", *args])


runs_app = typer.Typer(cls=_ListsByDefault, help="List the runs in a folder, or ask them in SQL.")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON line for each row.")]


@runs_app.command(name="list")
def list_(
    folder: Annotated[Path, typer.Argument(help="Searched with everything below it.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs below a folder with their main numbers (the default: `sspa-train runs [FOLDER]`)."""
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
    folder: Annotated[Path, typer.Option(help="Searched with everything below it.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Ask the runs below a folder anything, in SQL; `SELECT * FROM runs` shows the columns."""
    from sspa.stage2_training.runs.listing import query_runs

    columns, rows = query_runs(folder, sql)
    if as_json:
        for row in rows:
            output.print(json.dumps(dict(zip(columns, row, strict=True)), default=str), markup=False)
        return
    print_table(columns, [rows])


def _show(runs: "list[ListedRun]") -> None:
    columns = ("run", "data", "protocol", "head", "backbone", "seed", "best epoch", "val", "test mAP", "s")
    rows = []
    for run in runs:
        if run.state == "damaged":
            continue
        best = (
            f"{run.best_epoch}/{run.epochs}" if run.state == "finished" else f"unfinished, {run.epochs_done or 0} done"
        )
        named = (run.run, run.data, run.protocol, run.head, run.backbone, run.seed, best)
        rows.append((*named, number(run.val_map), number(run.test_map), number(run.seconds, 0)))
    print_table(columns, [rows], left=columns[:5])
    for run in runs:
        if run.state == "damaged":
            output.print(f"damaged: {run.run}: {run.problem}", markup=False)
