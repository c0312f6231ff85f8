"""The subcommands of `sspa-knowledge` that read, compare, correct and copy knowledge files."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.query_options import QuerySeconds
from sspa.shared.tables import print_table
from sspa.shared.terminal import printable, say

app = typer.Typer()

KnowledgeFile = Annotated[Path, typer.Argument(metavar="FILE", help="A knowledge file (Parquet).")]


@app.command()
def query(
    file: KnowledgeFile,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One statement; the table is called knowledge.")],
    other: Annotated[Path | None, typer.Option(help="A second file, as the table called other.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")] = False,
    seconds: QuerySeconds = 60,
) -> None:
    """Query the table in SQL (DuckDB, read-only: no other files, no network)."""
    from sspa.stage1_knowledge.query import run_query

    columns, rows = run_query(file, sql, other, seconds)
    if as_json:
        for row in rows:
            print(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, default=str))
        return
    print_table(columns, [rows])


@app.command()
def show(
    file: KnowledgeFile,
    label: Annotated[
        str | None, typer.Argument(help="Only this label, with the provenance of its descriptions.")
    ] = None,
) -> None:
    """Show the descriptions; with a label, everything recorded about them."""
    from sspa.stage1_knowledge.show import show_all, show_label

    print(printable(show_label(file, label) if label else show_all(file)))


@app.command()
def labels(name: Annotated[str | None, typer.Argument(help="Show the labels of this set or file.")] = None) -> None:
    """List the built-in label sets, or the labels of one."""
    from sspa.shared.label_sets import built_in_names, read_label_set

    if name is None:
        for built_in in built_in_names():
            label_set = read_label_set(built_in)
            print(f"{built_in:12s} {len(label_set.labels):3d} labels, {label_set.domain}: "
                  f"{', '.join(label_set.texts[:5])}, ...")  # fmt: skip
        return
    for label in read_label_set(name).labels:
        print("\t".join((label.key, label.text, label.hint)).rstrip("\t"))


@app.command()
def report(file: KnowledgeFile) -> None:
    """Summarise a table: verdicts, retries, tokens, speed, and the doubtful descriptions."""
    from sspa.stage1_knowledge.report import report as make

    print(printable(make(file)))


@app.command()
def check(file: KnowledgeFile) -> None:
    """Verify checksums, schema and content hash, and judge the descriptions by the current rules."""
    from sspa.stage1_knowledge.report import check as make

    print(printable(make(file)))


@app.command()
def diff(first: KnowledgeFile, second: KnowledgeFile) -> None:
    """Show per label what changed between two tables, and which setting did it."""
    from sspa.stage1_knowledge.report import diff as make

    print(printable(make(first, second)))


@app.command()
def export(
    file: KnowledgeFile,
    target: Annotated[Path, typer.Argument(help="A file that ends in .csv or .jsonl.")],
) -> None:
    """Write the descriptions as CSV or JSON lines, to be corrected in a spreadsheet."""
    from sspa.stage1_knowledge.exchange import export as write

    count = write(file, target)
    say(f"{target}: {count} descriptions; bring changes back with `sspa-knowledge import {file} {target}`")


@app.command("import")
def import_(
    file: KnowledgeFile,
    source: Annotated[Path, typer.Argument(help="What `export` wrote, with descriptions corrected.")],
) -> None:
    """Import corrected descriptions; they count as written by a person and survive regeneration."""
    from sspa.stage1_knowledge.exchange import import_ as read

    say(f"{file}: {read(file, source)} descriptions changed")


@app.command()
def control(
    file: KnowledgeFile,
    kind: Annotated[str, typer.Option(help="name-only, shuffled or random-words.")],
    output_file: Annotated[Path | None, typer.Option("--output", help="[default: FILE with the kind added]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random draw.")] = 0,
) -> None:
    """Write a control: the same labels with knowledge that cannot help."""
    from sspa.shared.knowledge_control import KINDS
    from sspa.stage1_knowledge.control import make_control

    if kind not in KINDS:
        raise UserError(f"--kind {kind}: unknown; choose one of {', '.join(KINDS)}")
    target = output_file or file.with_name(f"{file.stem}.{kind}.parquet")
    say(f"{target}: {make_control(file, kind, target, seed)} descriptions, {kind}")


@app.command()
def migrate(file: KnowledgeFile) -> None:
    """Upgrade a table to the current schema version."""
    from sspa.shared.holding import held
    from sspa.shared.knowledge_format import SCHEMA_VERSION
    from sspa.shared.knowledge_format import migrate as rewrite

    with held(file, "wait for it"):
        say(f"{file}: schema version {rewrite(file)} -> {SCHEMA_VERSION}")
