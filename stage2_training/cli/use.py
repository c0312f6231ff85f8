"""The subcommands of `sspa-train` that use a trained run. Heavy imports happen inside the commands."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.terminal import loading, say
from sspa.stage2_training.cli.options import (
    AllowDownload,
    Describe,
    Device,
    OtherKnowledge,
    OtherLabels,
    RunArgument,
    ScoringPrecision,
    Threshold,
    check_prediction_file,
    command_device,
)

if TYPE_CHECKING:
    from sspa.shared.label_sets import LabelSet
    from sspa.stage2_training.inference.tagger import Tagger

use_app = typer.Typer()


@use_app.command()
def predict(
    run_path: RunArgument,
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Files, folders, patterns, or - for a list on standard input."),
    ],
    top: Annotated[
        int | None,
        typer.Option(min=1, help="So many labels per image. [default: 5 on a terminal, in a pipe the predicted ones]"),
    ] = None,
    threshold: Threshold = "0.5",
    knowledge: OtherKnowledge = None,
    labels: OtherLabels = None,
    describe: Describe = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per image, with every label.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FOLDER/", help="A Parquet file, or for very many images a folder; resumes if interrupted."
        ),
    ] = None,
    per_file: Annotated[int, typer.Option(min=1, help="Images of a list per file of the folder.")] = 10_000,
    shard: Annotated[
        str | None, typer.Option(metavar="K/N", help="With a folder: only the K-th of N parts, as in an array job.")
    ] = None,
    ray: Annotated[int, typer.Option(min=0, help="With a folder: tag in so many actors of a Ray cluster.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 32,
    precision: Annotated[
        ScoringPrecision,
        typer.Option(help="Precision of the image tower; auto: bf16 if the GPU has it."),
    ] = ScoringPrecision.auto,
    device: Device = "auto",
    allow_download: AllowDownload = False,
) -> None:
    """Tag images: labels with probabilities. Images that cannot be read are skipped and listed."""
    from sspa.stage2_training.prediction.image_paths import find_images

    if out is not None and as_json:
        raise UserError("--out and --json: choose one of them")
    if out is not None and _is_folder(out):
        if ray and describe:
            raise UserError("--describe with --ray: describe first (sspa-knowledge generate), then give --knowledge")
        _check_use(run_path, threshold, knowledge, labels, describe)
        with loading():
            from sspa.stage2_training.prediction.folder_job.command import device_of_process, tag_into_folder

        own = device_of_process(device)
        load = partial(_load, run_path, threshold, knowledge, labels, describe, own, allow_download, precision)
        tag_into_folder(load, images, out, per_file, batch_size, shard, ray)
        return
    if shard is not None or ray:
        raise UserError("--shard and --ray write a folder of files: give --out FOLDER/, with the slash")
    if out is not None:
        check_prediction_file(Path(out))
    paths = find_images(images)
    _check_use(run_path, threshold, knowledge, labels, describe)
    with loading():
        from sspa.stage2_training.prediction.job import show_predictions, write_predictions

    tagger = _load(run_path, threshold, knowledge, labels, describe, device, allow_download, precision)
    if out is not None:
        write_predictions(tagger, paths, Path(out), batch_size)
    else:
        show_predictions(tagger, paths, batch_size, top, as_json)


@use_app.command()
def explain(
    run_path: RunArgument,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    out: Annotated[Path, typer.Option(help="The folder for the page and its PNG files.")],
    threshold: Threshold = "0.5",
    knowledge: OtherKnowledge = None,
    labels: OtherLabels = None,
    describe: Describe = False,
    device: Device = "auto",
    allow_download: AllowDownload = False,
) -> None:
    """Explain a prediction: each label's maps, attention, gates and knowledge, as PNG files and one page."""
    from sspa.stage2_training.prediction.image_paths import find_images

    find_images([str(image)])
    _check_use(run_path, threshold, knowledge, labels, describe)
    with loading():
        from sspa.stage2_training.explanation.image import explain_image

    tagger = _load(run_path, threshold, knowledge, labels, describe, device, allow_download)
    say(f"page: {explain_image(tagger, image, out)}")


@use_app.command()
def demo(
    run_path: RunArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes any free one.")] = 7860,
    host: Annotated[
        str, typer.Option(help="The address to listen on; any but this machine's own lets others in.")
    ] = "127.0.0.1",
    threshold: Threshold = "0.5",
    knowledge: OtherKnowledge = None,
    labels: OtherLabels = None,
    describe: Describe = False,
    max_megabytes: Annotated[float, typer.Option(min=0.01, help="The largest file that may be uploaded.")] = 20,
    max_megapixels: Annotated[float, typer.Option(min=0.01, help="The largest image that is decoded.")] = 50,
    device: Device = "auto",
    allow_download: AllowDownload = False,
) -> None:
    """Serve a page for trying the model: drop an image, see its labels and why, type labels of your own."""
    _check_use(run_path, threshold, knowledge, labels, describe)
    with loading():
        from sspa.stage2_training.demo.scoring import Limits
        from sspa.stage2_training.demo.server import serve

    start, limits = _threshold(threshold), Limits(max_megabytes, max_megapixels)
    # The page applies the threshold itself: the tagger would reject typed labels, which have no tuned ones.
    load = partial(_load, run_path, "0.5", knowledge, labels, describe, device, allow_download)
    serve(load, start, limits, host, port)


def _check_use(run_path: Path, threshold: str, knowledge: Path | None, labels: str | None, describe: bool) -> None:
    """Reject what `_load` would reject after seconds of loading libraries."""
    from sspa.shared.knowledge import read_knowledge
    from sspa.stage2_training.runs.run_folder import open_run_folder

    if knowledge is not None and labels is not None:
        raise UserError("--knowledge and --labels: choose one of them")
    if describe and labels is None:
        raise UserError("--describe is for --labels, which is missing")
    folder = open_run_folder(run_path)
    folder.check_loadable()
    if _threshold(threshold) is None and knowledge is None and labels is None:
        folder.thresholds()
    if knowledge is not None:
        read_knowledge(knowledge)
    elif labels is not None:
        label_set_of(labels)


def _load(
    run_path: Path,
    threshold: str,
    knowledge: Path | None,
    labels: str | None,
    describe: bool,
    device: str,
    allow_download: bool,
    precision: ScoringPrecision = ScoringPrecision.auto,
) -> "Tagger":
    from sspa.shared.knowledge import names_only, read_knowledge
    from sspa.stage2_training.inference.tagger import Tagger
    from sspa.stage2_training.prediction.describing import described
    from sspa.stage2_training.runs.run_folder import open_run_folder

    where = str(command_device(device))
    start, other = _threshold(threshold), None
    if knowledge is not None:
        other = read_knowledge(knowledge)
    elif labels is not None:
        domain = open_run_folder(run_path).knowledge().domain
        given = replace(label_set_of(labels), domain=domain)
        if describe:
            other = described(given)
        else:
            other = names_only(given)
            say("labels by name only; with --describe, sspa-knowledge first writes a description of each")
    return Tagger.load(
        run_path,
        device=where,
        precision=precision.value,
        knowledge=other,
        threshold=start,
        allow_download=allow_download,
    )


def _is_folder(out: str) -> bool:
    return out.endswith("/") or "://" in out or Path(out).is_dir()


def label_set_of(text: str) -> "LabelSet":
    """A label file, a built-in set, or names separated by commas."""
    from sspa.shared.label_sets import built_in_names, parse_label_set, read_label_set

    if Path(text).is_file() or text.removesuffix(".txt") in built_in_names():
        return read_label_set(text)
    if text.endswith((".txt", ".csv", ".parquet")):
        raise UserError(f"--labels {text}: there is no such file; give a label file, a built-in set, or names: cat,dog")
    return parse_label_set("\n".join(text.split(",")).encode(), "--labels", "--labels")


def _threshold(text: str) -> float | None:
    """The number, or None for `tuned`."""
    if text == "tuned":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UserError(f"--threshold {text}: give a number from 0 to 1, or `tuned`")
    return value
