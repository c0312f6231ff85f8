"""From photos without labels to a tagger, timed: tag, review by a script, run, predict, by the README's commands.

    python benchmarks/one_evening.py FOLDER --root VOCdevkit

FOLDER is new: 300 of VOC2007's train photos and 12 label names, of which the data set knows the truth. 60 photos are
answered, `--pause` seconds apart. What each command said, the models and the predictions stay in FOLDER. The last lines
are the times, and the mAP on the photos that nobody reviewed: tagged by names, and predicted by the run.
"""

import argparse
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np
from first_hour import Trip

from sspa.stage2_training.data.dataset import load_dataset
from sspa.stage2_training.evaluation.metrics import class_average_precisions
from sspa.stage2_training.evaluation.protocols import get_protocol

PHOTOS, ANSWERS = 300, 60
LABELS = ("bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "dog", "horse", "person", "train")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--pause", type=float, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True)
    truth = _photos(folder, options.root, options.seed)
    trip = Trip(folder)
    trip.take("generate", "sspa-knowledge generate --labels mine.txt")
    trip.take("tag", "sspa-train tag PHOTOS --labels mine.txt --out before.parquet")
    reviewed = _review(trip, truth, options.pause)
    trip.take(
        "prepare", "sspa-train data prepare custom --name mine --review mine.review.jsonl --root PHOTOS --unanswered"
    )
    trip.take(
        "run",
        "sspa-train run --knowledge artifacts/mine.parquet --data artifacts/mine.manifest.parquet --root PHOTOS "
        "--preset embedded-photos-taught --out runs/mine",
    )
    trip.take("predict", "sspa-train predict runs/mine PHOTOS --out after.parquet")
    print("; ".join(f"{name} {seconds:.0f} s" for name, seconds in trip.seconds.items()))
    others = sorted(truth.keys() - reviewed)
    before, after = (_mean_precision(folder / f"{name}.parquet", truth, others) for name in ("before", "after"))
    total = sum(trip.seconds.values())
    print(
        f"{total / 60:.1f} minutes (goal 15); mAP on the {len(others)} other photos: tag {before:.2f}, run {after:.2f}"
    )


def _photos(folder: Path, root: Path, seed: int) -> dict[str, dict[str, int]]:
    """PHOTOS and mine.txt; the marks of each photo, by its name and the label's key."""
    train = load_dataset("voc2007", root)
    split = train.split("train")
    drawn = np.sort(np.random.default_rng(seed).permutation(len(split))[:PHOTOS])
    (folder / "PHOTOS").mkdir()
    truth = {}
    for row in drawn.tolist():
        shutil.copyfile(split.paths[row], folder / "PHOTOS" / split.paths[row].name)
        marks = dict(zip(train.labels.keys, split.targets[row].tolist(), strict=True))
        truth[split.paths[row].name] = {key: marks[key] for key in LABELS}
    (folder / "mine.txt").write_text("\n".join(LABELS) + "\n")
    return truth


def _review(trip: Trip, truth: dict[str, dict[str, int]], pause: float) -> set[str]:
    """Serve the page and answer as a person would, one photo after the other; the photos that were answered."""
    command = "sspa-train review --knowledge artifacts/mine.parquet --root PHOTOS --out mine.review.jsonl --port 0"
    print(f"$ {command}", flush=True)
    start, said = time.perf_counter(), trip.folder / "review.log"
    with said.open("w") as log:
        server = subprocess.Popen(
            command.split(), cwd=trip.folder, env=trip.environment, stdout=log, stderr=subprocess.STDOUT
        )
    answered: set[str] = set()
    try:
        while (page := re.search(r"page: (http://\S+)", said.read_text())) is None:
            if server.poll() is not None:
                raise SystemExit(f"no page came:\n{said.read_text()[-2000:]}")
            time.sleep(0.2)
        trip.seconds["page"] = time.perf_counter() - start
        with httpx.Client(base_url=page.group(1).rstrip("/.,;"), timeout=60) as client:
            while client.get("/state").json()["progress"]["photos_read"] is not None:
                time.sleep(0.5)
            trip.seconds["read photos"] = time.perf_counter() - start - trip.seconds["page"]
            began = time.perf_counter()
            for number in range(ANSWERS):
                (asked,) = client.get("/next?count=1").json()["asked"]
                answer: dict[str, Any] = {"id": f"answer-{number}", "path": asked["name"], "chosen": asked["chosen"]}
                answer["marks"] = truth[asked["name"]]
                client.post("/answers", json={"answers": [answer]}).raise_for_status()
                answered.add(asked["name"])
                time.sleep(pause)
            trip.seconds[f"{ANSWERS} answers"] = time.perf_counter() - began
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(300)
    return answered


def _mean_precision(table: Path, truth: dict[str, dict[str, int]], names: list[str]) -> float:
    found = duckdb.execute(f"SELECT path, label, probability FROM '{table}'").fetchall()
    said = {(Path(path).name, label): probability for path, label, probability in found}
    probabilities = np.array([[said[name, key] for key in LABELS] for name in names])
    targets = np.array([[truth[name][key] for key in LABELS] for name in names], dtype=np.int8)
    return 100 * float(np.nanmean(class_average_precisions(probabilities, targets, get_protocol("custom"))))


if __name__ == "__main__":
    main()
