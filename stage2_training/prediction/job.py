"""Implements `sspa-train predict`: shows each image's labels, or writes them all to one file."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from sspa.shared.errors import UserError
from sspa.shared.terminal import output, progress, say
from sspa.stage2_training.data.columns import Paths, Texts
from sspa.stage2_training.inference.image_stream import Tagged, Unreadable, tag_images
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.prediction.parquet import prediction_file

_LISTED = 20
# So many images tell how probabilities lie.
_TYPICAL = 300


def show_predictions(tagger: Tagger, paths: Sequence[Path], batch_size: int, top: int, as_json: bool) -> None:
    """Print JSON lines, or else a table on a terminal and elsewhere tab-separated lines of path, label, probability.

    Raises:
        UserError: none of the images can be read.
    """
    with _progress_unless_shown(len(paths), batch_size) as advance:
        for tagged in _readable(tagger, paths, batch_size, boxes=False, advance=advance):
            _show(tagger, tagged, top, as_json)


def _show(tagger: Tagger, tagged: Tagged, top: int, as_json: bool) -> None:
    tags = tagger.tags_of(tagged.probabilities)
    if as_json:
        line = {"path": tagged.name, "labels": tags.probabilities, "predicted": tags.predicted}
        typer.echo(json.dumps(line, ensure_ascii=False))
        return
    shown = list(tags.probabilities.items())[:top]
    if not output.is_terminal:
        for label, probability in shown:
            typer.echo(f"{tagged.name}\t{label}\t{probability:.4f}")
        return
    # Not as the table's title, which is wrapped if the table is narrow.
    output.print(Text(tagged.name))
    table = Table("label", "probability")
    for label, probability in shown:
        style = "bold green" if label in tags.predicted else "dim"
        table.add_row(Text(label, style), Text(f"{100 * probability:.1f} %", style))
    output.print(table)


@contextmanager
def _progress_unless_shown(images: int, batch_size: int) -> Iterator[Callable[[int], None]]:
    """Progress if results go to a file or a pipe; on a terminal the results themselves show it."""
    if output.is_terminal or images <= batch_size:
        yield lambda count: None
    else:
        with progress("tagging", images, "images") as bar:
            yield bar.advance


def typical_probabilities(tagger: Tagger, paths: Sequence[Path], batch_size: int) -> NDArray[np.float32]:
    """(N, C): the probabilities of some of the images, evenly chosen.

    Raises:
        UserError: none of these can be read.
    """
    chosen = paths[:: -(-len(paths) // _TYPICAL)]
    with progress("looking at typical images", len(chosen), "images") as bar:
        tagged = list(_readable(tagger, chosen, batch_size, boxes=False, advance=bar.advance))
    return np.stack([one.probabilities for one in tagged])


def write_predictions(tagger: Tagger, paths: Sequence[Path], out: Path, batch_size: int) -> None:
    """Write the predictions for all images to one Parquet file; see `prediction_file`.

    Raises:
        UserError: what `prediction_file` raises, or none of the images can be read.
    """
    with prediction_file(out, tagger) as file:
        done = file.done()
        left = Paths(Path(), Texts(name for name in map(str, paths) if name not in done))
        if done:
            say(f"{out}: resuming; {len(paths) - len(left):,} of {len(paths):,} images are tagged already")
        written = len(paths) - len(left)
        with progress("tagging", len(left), "images") as bar:
            for tagged in _readable(tagger, left, batch_size, boxes=True, advance=bar.advance):
                file.add(tagged)
                written += 1
        file.finish()
    say(f"{out}: wrote the labels of {written:,} images; read it with duckdb -c \"FROM '{out}'\"")


def _readable(
    tagger: Tagger,
    paths: Sequence[Path],
    batch_size: int,
    boxes: bool,
    advance: Callable[[int], None] = lambda count: None,
) -> Iterator[Tagged]:
    """The images that can be read; the others are listed at the end.

    Raises:
        UserError: none can be read.
    """
    unreadable: list[Unreadable] = []
    for item in tag_images(tagger, paths, boxes, batch_size):
        advance(1)
        if isinstance(item, Unreadable):
            unreadable.append(item)
        else:
            yield item
    if paths and len(unreadable) == len(paths):
        first = unreadable[0].reason
        raise UserError(first if len(paths) == 1 else f"none of the {len(paths)} images can be read; {first}")
    for item in unreadable[:_LISTED]:
        say(f"skipped: {item.reason}")
    if len(unreadable) > _LISTED:
        say(f"skipped: {len(unreadable) - _LISTED} more that cannot be read")
