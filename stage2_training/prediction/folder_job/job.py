"""Implements `sspa-train predict --out FOLDER/`: units of work, each of which becomes one file.

What is left to do is what has no file yet, so that any number of processes, machines and restarts work on one folder.
"""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sspa.shared.errors import UserError
from sspa.shared.terminal import progress, say
from sspa.stage2_training.inference.image_stream import Unreadable, tag_images
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.prediction.folder_job.output import OutputFolder
from sspa.stage2_training.prediction.folder_job.table import compact_row, label_lines, parquet_bytes
from sspa.stage2_training.prediction.folder_job.units import Unit, cut_of
from sspa.stage2_training.prediction.parquet import job_of


class Counted(NamedTuple):
    """What a process has done of a unit since it last said so: images, and those of them that could not be read.

    `finished`: the unit's file is there.
    """

    unit: str
    images: int
    unreadable: int
    finished: bool


def begin(tagger: Tagger, units: Sequence[Unit], out: str) -> OutputFolder:
    """The folder `out`, which says from now on what is in it.

    Raises:
        UserError: it holds another job's output, or cannot be written.
    """
    folder = OutputFolder(out)
    folder.begin({**job_of(tagger), "lists": cut_of(units)}, label_lines(tagger))
    return folder


def left_of(units: Sequence[Unit], folder: OutputFolder, part: int, parts: int) -> list[Unit]:
    """The unfinished units of this part, counted from 0, of `parts`: every `parts`-th one."""
    own = units[part::parts]
    finished = folder.finished()
    left = [unit for unit in own if unit.name not in finished]
    if len(left) < len(own):
        say(f"{folder.place}: {len(own) - len(left):,} of {len(own):,} parts are there already")
    return left


def tag_unit(tagger: Tagger, unit: Unit, folder: OutputFolder, batch_size: int) -> Iterator[Counted]:
    """Tag a unit's images and write its file, unless another process has done so meanwhile.

    Raises:
        UserError: its shard is missing, or the file cannot be written.
    """
    if not folder.has(unit.name):
        rows = []
        for item in tag_images(tagger, unit.images(), True, batch_size):
            rows.append(compact_row(tagger, item))
            yield Counted(unit.name, 1, int(isinstance(item, Unreadable)), False)
        folder.put(unit.name, parquet_bytes(rows, len(tagger.labels)))
    yield Counted(unit.name, 0, 0, True)


def tag_here(tagger: Tagger, units: Sequence[Unit], folder: OutputFolder, batch_size: int) -> Iterator[Counted]:
    """Tag the units one after another in this process."""
    for unit in units:
        yield from tag_unit(tagger, unit, folder, batch_size)


def report(folder: OutputFolder, parts: int, done: Iterator[Counted]) -> None:
    """Show how the work goes, and in the end what was done.

    Raises:
        UserError: none of the images could be read.
    """
    images = unreadable = 0
    began = time.monotonic()
    with progress("tagging", parts, "parts") as bar:
        for counted in done:
            images, unreadable = images + counted.images, unreadable + counted.unreadable
            rate = images / max(time.monotonic() - began, 1e-9)
            bar.advance(int(counted.finished), f"{images:,} images, {rate:,.1f} images/s")
    say(f"{folder.place}: tagged {images:,} images in {parts:,} parts; docs/using.md shows how to query them")
    if unreadable:
        query = f"SELECT path, error FROM '{folder.place}/*.parquet' WHERE error IS NOT NULL"
        say(f'{unreadable:,} of them could not be read; which: duckdb -c "{query}"')
    if images and images == unreadable:
        raise UserError(f"{folder.place}: none of the {images:,} images could be read")
