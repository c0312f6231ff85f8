"""`sspa-train bench`: the model's speed compared with its image tower. Heavy imports happen inside the command."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.tables import markdown_table
from sspa.shared.terminal import loading, output, progress, say
from sspa.stage2_training.cli.options import AsJson, Device, command_device
from sspa.stage2_training.compute.precision import check_precision

if TYPE_CHECKING:
    from sspa.stage2_training.bench.model_speed import BenchResult
    from sspa.stage2_training.data.dataset import Split

# The project's goals on any device, as a share of the bare tower's speed.
GOALS = {"evaluation": 0.9, "training step": 0.8}


class Precision(StrEnum):
    """As in training.precision."""

    float32 = "float32"
    bf16 = "bf16"
    fp16 = "fp16"


bench_app = typer.Typer()


@bench_app.command()
def bench(
    backbone: Annotated[str, typer.Option(help="As in backbone.name; weights are random, except for `embedded`.")] = (
        "embedded"
    ),
    image_size: Annotated[
        str | None, typer.Option(help="SIZE or HEIGHTxWIDTH of the images; 260 for `embedded`, else 224.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 32,
    precision: Annotated[Precision, typer.Option(help="As in training.precision.")] = Precision.float32,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the image tower and the head.")] = False,
    labels: Annotated[str, typer.Option(help="A label set by name, or a label file.")] = "voc",
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds; the median counts.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Torch threads on a CPU; its own choice by default.")
    ] = None,
    processor_time: Annotated[
        bool, typer.Option("--processor-time", help="Count CPU seconds; for one thread on a busy CPU.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="A data set whose val images are loaded; generated ones by default.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The data set's folder.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes that load images.")] = 2,
    as_json: AsJson = False,
    device: Device = "auto",
) -> None:
    """Images per second of the bare image tower, of evaluation and of a training step, and where the time goes."""
    from sspa.stage2_training.bench.step_request import spec_and_size

    spec, pixels = spec_and_size(f"{backbone}@{image_size or ('260' if backbone == 'embedded' else '224')}")
    images = None if data is None else _val_of(data, root)
    with loading():
        import torch

        from sspa.stage2_training.bench.model_speed import BenchRequest
        from sspa.stage2_training.bench.model_speed import bench as measure

    chosen = command_device(device)
    if processor_time and (chosen.type != "cpu" or threads != 1):
        raise UserError("--processor-time is for one thread of a CPU only: add --device cpu --threads 1")
    check_precision(precision.value, chosen, "--precision")
    if threads is not None:
        torch.set_num_threads(threads)
    request = BenchRequest(spec, pixels, batch, precision.value, compile_, labels, rounds, processor_time)
    with progress(f"measuring {backbone} on {chosen}", total=2 * rounds, unit="rounds") as bar:
        found = measure(request, chosen, bar.advance)
    loaded = _loading(images, pixels, workers, rounds)
    if as_json:
        output.print_json(json.dumps({**asdict(found), "loading": loaded, "request": asdict(request)}))
        return
    where = f"{torch.cuda.get_device_name()}" if chosen.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    output.print(
        f"{backbone} at {pixels[0]}x{pixels[1]} ({found.regions} regions), {found.labels} labels, batch {batch}, "
        f"{precision.value}{', compiled' if compile_ else ''}, {where}, torch {torch.__version__}"
        f"{', in processor time' if processor_time else ''}",
        markup=False,
    )
    _show(found, loaded, batch)


def _show(found: "BenchResult", loaded: float, batch: int) -> None:
    rows = []
    for name, speed in found.speeds.items():
        goal = GOALS.get(name)
        reached = "" if goal is None else f"{goal} {'reached' if speed.ratio >= goal else 'missed'}"
        rows.append((name, f"{speed.images_per_second:.1f}", f"{speed.ratio:.2f}", reached))
    tower = found.speeds["bare tower"].images_per_second
    rows.append(("loading", f"{loaded:.1f}", f"{loaded / tower:.2f}", ""))
    _print_markdown(("", "images/s", "of the bare tower", "goal"), rows)
    parts = (found.evaluation_ms, found.step_ms)
    stages = [
        (name, *(f"{part[name]:.1f}" if name in part else "" for part in parts))
        for name in dict.fromkeys((*found.evaluation_ms, *found.step_ms))
    ]
    sums = ("sum", *(f"{sum(part.values()):.1f}" for part in parts))
    _print_markdown(("ms per batch", "evaluation", "training step"), [*stages, sums])
    output.print(
        f"\nlabel texts, once per split: {found.text_ms:.1f} ms; loading, beside the rest: "
        f"{1000 * batch / loaded:.1f} ms per batch; peak memory: {found.peak_bytes / 1e9:.2f} GB",
        markup=False,
    )


def _print_markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    output.print(f"\n{markdown_table(columns, rows)}", markup=False)


def _val_of(data: str, root: Path | None) -> "Split":
    from sspa.stage2_training.data.dataset import load_dataset

    return load_dataset(data, root).split("val")


def _loading(images: "Split | None", size: tuple[int, int], workers: int, rounds: int) -> float:
    """Images per second of our loader, of a split or of generated images."""
    from sspa.stage2_training.bench.loader_speed import drawn_split, loading_rate

    if images is not None:
        return loading_rate(images, size, workers, rounds)
    say("loading is measured on generated images of 500x375 pixels; choose real ones with --data")
    with tempfile.TemporaryDirectory() as folder:
        return loading_rate(drawn_split(Path(folder)), size, workers, rounds)
