"""`sspa-train cache`: what is kept between runs. Heavy imports happen inside the command."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sspa.shared.tables import print_table
from sspa.shared.terminal import output, say
from sspa.stage2_training.cli.options import AsJson

cache_app = typer.Typer()


@cache_app.command()
def cache(
    keep_gb: Annotated[
        float | None, typer.Option("--keep", min=0, help="Delete the least recently used until this many GB are left.")
    ] = None,
    orphaned: Annotated[
        bool, typer.Option("--orphaned", help="Delete those that only runs have used whose folders are gone.")
    ] = False,
    run: Annotated[Path | None, typer.Option(help="List only what this run has used.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the cached features of frozen towers, the most recently used first, or make room."""
    from datetime import datetime

    from sspa.shared.cache import cache_folder
    from sspa.stage2_training.features.cache_entries import CACHE, cache_entries, delete_orphaned, make_room

    if orphaned or keep_gb is not None:
        deleted = delete_orphaned() if orphaned else []
        deleted += [] if keep_gb is None else make_room(keep_gb * 1e9)
        say(f"deleted {len(deleted)} entries, {_gb(sum(entry.size_bytes for entry in deleted))}")
    entries = cache_entries()
    if run is not None:
        entries = [entry for entry in entries if str(run.resolve()) in entry.runs]
    if as_json:
        listed = [
            {**asdict(entry), "about": None if entry.about is None else entry.about.model_dump()} for entry in entries
        ]
        output.print(json.dumps(listed, indent=1), markup=False)
        return
    say(f"{cache_folder(CACHE)}: {len(entries)} entries, {_gb(sum(entry.size_bytes for entry in entries))}")
    rows: list[list[object]] = []
    for entry in entries:
        used = f"{datetime.fromtimestamp(entry.last_used):%Y-%m-%d %H:%M}"
        if entry.about is None:
            rows.append([used, _gb(entry.size_bytes), "of another version of sspa", *[None] * 6])
            continue
        about = entry.about
        size = f"{about.image_size[0]}x{about.image_size[1]}"
        rows.append(
            [
                *(used, _gb(entry.size_bytes), about.images_in, about.split, about.images),
                *(about.view, about.backbone, size, _used_by(entry.runs)),
            ]
        )
    if rows:
        columns = ["last used", "size", "images in", "split", "images", "view", "backbone", "pixels", "used by"]
        print_table(columns, [rows], left=set(columns) - {"size", "images"})


def _used_by(runs: tuple[str, ...]) -> str | None:
    """The last run that is still there, and how many others are."""
    there = [run for run in map(Path, runs) if run.is_dir()]
    if not there:
        return "runs that are gone" if runs else None
    return there[-1].name + (f" and {len(there) - 1} more" if len(there) > 1 else "")


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB"
