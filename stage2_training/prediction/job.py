"""Implements `sspa-train predict`: shows each image's labels, or writes them all to one file."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from rich.text import Text

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.holding import held
from sspa.shared.terminal import output, progress, say
from sspa.stage2_training.data.columns import Paths, Texts
from sspa.stage2_training.data.export_forms.lists import write_csv, write_json_lines
from sspa.stage2_training.inference.image_stream import Tagged, Unreadable, tag_images
from sspa.stage2_training.inference.tagger import Tagger, Tags
from sspa.stage2_training.prediction.parquet import is_finished, prediction_file
from sspa.stage2_training.prediction.reading import predicted_images

_LISTED = 20
# Labels per image on a terminal.
_SHOWN = 5
# So many images tell how probabilities lie.
_TYPICAL = 300


def show_predictions(tagger: Tagger, paths: Sequence[Path], batch_size: int, top: int | None, as_json: bool) -> None:
    """Print a line per image on a terminal, JSON lines, or else tab-separated lines of path, label, probability.

    The predicted labels are marked on a terminal; elsewhere they are the only ones unless `top` says how many to print,
    and an image without any has one line without a label. In the end, how many images have each label.

    Raises:
        UserError: none of the images can be read.
    """
    counts: Counter[str] = Counter()
    images = without = 0
    with _progress_unless_shown(len(paths), batch_size) as advance:
        for tagged in _readable(tagger, paths, batch_size, boxes=False, advance=advance):
            tags = tagger.tags_of(tagged.probabilities)
            images, without = images + 1, without + (not tags.predicted)
            counts.update(tags.predicted)
            if as_json:
                line = {"path": tagged.name, "labels": tags.probabilities, "predicted": tags.predicted}
                typer.echo(json.dumps(line, ensure_ascii=False))
            elif output.is_terminal:
                output.print(_line(tagged.name, tags, _SHOWN if top is None else top))
            else:
                _echo(tagged.name, tags, top)
    if images > 1:
        said = [f"{label} {count:,}" for label, count in counts.most_common(_LISTED)]
        said += [f"{len(counts) - _LISTED} more labels"] if len(counts) > _LISTED else []
        say(f"{images:,} images: {', '.join([*said, f'no label {without:,}'])}")


def _line(name: str, tags: Tags, top: int) -> Text:
    """The most probable labels, those that are predicted first."""
    parts = [Text(name), Text("  ")]
    for place, (label, probability) in enumerate(list(tags.probabilities.items())[:top]):
        style = "bold green" if label in tags.predicted else "dim"
        parts.append(Text(f"{', ' if place else ''}{label} {100 * probability:.0f} %", style))
    return Text.assemble(*parts)


def _echo(name: str, tags: Tags, top: int | None) -> None:
    shown = tags.predicted if top is None else list(tags.probabilities)[:top]
    for label in shown:
        typer.echo(f"{name}\t{label}\t{tags.probabilities[label]:.4f}")
    if not shown:
        typer.echo(f"{name}\t\t")


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
    """Write the predictions for all images to one file: Parquet, or by its ending CSV or JSON lines.

    The other forms are written from a Parquet file beside `out`, so that they resume as well.

    Raises:
        UserError: what `prediction_file` raises, or none of the images can be read.
    """
    if out.suffix == ".parquet":
        written = _write_parquet(tagger, paths, out, batch_size)
        say(f"{out}: wrote the labels of {written:,} images; read it with duckdb -c \"FROM '{out}'\"")
        return
    with held(out, "wait for it, or choose another --out"):
        if out.exists():
            raise UserError(f"{out}: exists already; choose another name with --out, or remove it")
        whole = out.with_name(f".{out.name}.parquet")
        if not is_finished(whole, tagger):  # a process that was killed while it wrote `out` leaves it
            whole.unlink(missing_ok=True)
            _write_parquet(tagger, paths, whole, batch_size)
        with replacing(out) as beside:
            write = write_csv if out.suffix == ".csv" else write_json_lines
            count = write(predicted_images(whole), beside)
        whole.unlink()
    say(f"{out}: wrote the labels of {count:,} images")


def _write_parquet(tagger: Tagger, paths: Sequence[Path], out: Path, batch_size: int) -> int:
    """Write them to a Parquet file; returns the number of images in it."""
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
    return written


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
