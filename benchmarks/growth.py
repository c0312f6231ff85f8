"""What a large data set costs before any image is decoded: processor seconds, and bytes per image.

Run: python benchmarks/growth.py [IMAGES] [LABELS]

Makes a manifest of so many images, and empty files of their names, in a folder of its own; then measures each step in
a process of its own. Processor seconds count all threads; bytes are resident memory that the step's result keeps, or,
of a worker, memory that it no longer shares with the process it was forked from. Linux only.
"""

import gc
import io
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST = "m.parquet"
PER_FOLDER = 10_000
SCORED = 40_000


def make(folder: Path, images: int, labels: int) -> None:
    """The manifest, three labels per image on average, and the files."""
    from sspa.shared.label_sets import Label, LabelSet
    from sspa.stage2_training.data.columns import Texts
    from sspa.stage2_training.data.manifest import Manifest, write_manifest
    from sspa.stage2_training.evaluation.protocols import get_protocol

    keys = tuple(Label(f"label {number}", f"label {number}") for number in range(labels))
    paths = Texts(f"images/{row // PER_FOLDER:05}/{row:012}.jpg" for row in range(images))
    splits = Texts(("train", "train", "train", "train", "train", "train", "train", "val", "test", "test")[row % 10]
                   for row in range(images))  # fmt: skip
    targets = (np.random.default_rng(0).random((images, labels)) < 3 / labels).astype(np.int8)
    ids = Texts(f"{row:012}" for row in range(images))
    write_manifest(Manifest("grown", LabelSet("grown", keys), get_protocol("custom"), "", ids, paths, splits, targets),
                   folder / MANIFEST)  # fmt: skip
    for start in range(0, images, PER_FOLDER):
        (folder / f"images/{start // PER_FOLDER:05}").mkdir(parents=True)
        for row in range(start, min(start + PER_FOLDER, images)):
            os.close(os.open(folder / paths[row], os.O_CREAT | os.O_WRONLY))


def read_a_manifest(folder: Path) -> Any:
    from sspa.stage2_training.data.manifest import read_manifest

    return read_manifest(folder / MANIFEST)


def open_for_training(folder: Path) -> Any:
    from sspa.stage2_training.data.dataset import load_dataset

    return load_dataset(str(folder / MANIFEST), folder)


def walk_in_a_worker(folder: Path) -> int:
    """Every id, path and target is read in a forked process; returns the bytes that are then its own."""
    dataset = open_for_training(folder)
    gc.freeze()
    ours, theirs = os.pipe()
    if os.fork() == 0:
        before = memory("Private_Dirty")
        for split in dataset.splits.values():
            for row in range(len(split)):
                _ = split.ids[row], split.paths[row], split.targets[row]
        os.write(theirs, str(memory("Private_Dirty") - before).encode())
        os._exit(0)
    os.close(theirs)
    return int(os.read(ours, 64))


def data_stats(folder: Path) -> None:
    command(["data", "stats", str(folder / MANIFEST)])


def data_query(folder: Path) -> None:
    command(["data", "query", str(folder / MANIFEST), "SELECT split, count(*) FROM manifest GROUP BY split"])


def digests_of_images(folder: Path) -> Any:
    from sspa.stage2_training.features.image_digests import image_digests

    return [image_digests(split.paths) for split in open_for_training(folder).splits.values()]


def list_for_predict(folder: Path) -> Any:
    from sspa.stage2_training.prediction.image_paths import find_images

    lines = "".join(f"{folder}/{path}\n" for path in read_a_manifest(folder).paths)
    return find_images(["-"], io.StringIO(lines))


def bootstrap(folder: Path) -> None:
    """1,000 resamples of 40,000 images."""
    from sspa.stage2_training.evaluation.bootstrap import map_interval
    from sspa.stage2_training.evaluation.protocols import get_protocol

    targets = read_a_manifest(folder).targets[:SCORED]
    scores = np.random.default_rng(1).random(targets.shape) + targets
    map_interval(scores, targets, get_protocol("custom"), resamples=1000)


def command(arguments: list[str]) -> None:
    from sspa.stage2_training.cli.main import app

    app(arguments, standalone_mode=False)


STEPS: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "read a manifest": (read_a_manifest, True),
    "open it for training": (open_for_training, True),
    "walk it in a worker": (walk_in_a_worker, True),
    "data stats": (data_stats, False),
    "data query": (data_query, False),
    "digests of images, first": (digests_of_images, False),
    "digests of images, again": (digests_of_images, False),
    "the list of `predict -`": (list_for_predict, True),
    "bootstrap": (bootstrap, False),
}


def memory(kind: str) -> int:
    """Bytes of this process: Rss, Private_Dirty, ..."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


def measure(name: str, folder: Path, images: int) -> None:
    step, keeps = STEPS[name]
    import pyarrow.compute  # noqa: F401
    import torch  # noqa: F401

    import sspa.stage2_training.data.dataset  # noqa: F401

    gc.collect()
    before, began, walls = memory("Rss"), time.process_time(), time.monotonic()
    result = step(folder)
    seconds, wall = time.process_time() - began, time.monotonic() - walls
    gc.collect()
    kept = result if isinstance(result, int) else memory("Rss") - before
    per_image = f"{kept / images:7.0f} B per image" if keeps else ""
    print(f"{name:26} {seconds:7.1f} s of processor, {wall:6.1f} s {per_image}", file=sys.stderr, flush=True)


def main(images: int, labels: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SSPA_CACHE"] = str(folder / "cache")
        make(folder, images, labels)
        print(f"{images:,} images x {labels} labels", file=sys.stderr, flush=True)
        for step in STEPS:
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(step, folder, images))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{step}: exit code {process.exitcode}")


if __name__ == "__main__":
    given = [int(value) for value in sys.argv[1:3]]
    main(*given, *(1_000_000, 80)[len(given) :])
