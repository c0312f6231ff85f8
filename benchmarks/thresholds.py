"""How to tune thresholds on few images: each way on some of a run's scored images, measured on others of them.

    sspa-train run --data voc2007 --root VOCdevkit --knowledge artifacts/voc.parquet --set data.fold=1/3 --out runs/fold
    python benchmarks/thresholds.py runs/fold

Of runs on a fold, so that no test image chooses how it is done. Prints CF1, OF1 and the mean of the labels' F1.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sspa.stage2_training.evaluation.metrics import evaluate_scores
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.evaluation.thresholds import Thresholds, tune_each, tune_one
from sspa.stage2_training.runs.run_folder import open_run_folder
from sspa.stage2_training.runs.stored_tensors import read_predictions

DRAWS = 30
SIZES = (20, 60, 120, 250)
Way = Callable[[NDArray[np.float32], NDArray[np.int8]], Thresholds]
WAYS: dict[str, Way] = {
    "0.5": lambda scores, targets: Thresholds.fixed(0.5, targets.shape[1]),
    "one": tune_one,
    **{f"prior {prior:g}": partial(tune_each, prior=prior) for prior in (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)},
}


def figures(scores: NDArray[np.float32], targets: NDArray[np.int8], thresholds: Thresholds) -> NDArray[np.float64]:
    """CF1, OF1 and the mean F1 of labels, in percent."""
    found = evaluate_scores(
        scores, targets, [str(c) for c in range(targets.shape[1])], get_protocol("custom"), thresholds
    )
    chosen = scores >= thresholds.values
    hits = ((targets == 1) & chosen).sum(axis=0)
    f1 = 2 * hits / np.maximum((targets == 1).sum(axis=0) + (chosen & (targets >= 0)).sum(axis=0), 1)
    return 100 * np.array([found.at_threshold.CF1, found.at_threshold.OF1, f1.mean()])


def main() -> None:
    """Print a table per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    for path in parser.parse_args().runs:
        probabilities, targets = read_predictions(open_run_folder(path))
        scores = probabilities["both"]
        print(f"\n{path}: {targets.shape[0]} images, {targets.shape[1]} labels, {DRAWS} draws; CF1 / OF1 / mean F1\n")
        print(f"| images | {' | '.join(WAYS)} |\n|{'---|' * (len(WAYS) + 1)}")
        generator = np.random.default_rng(0)
        for size in SIZES:
            drawn = [np.split(generator.permutation(len(scores)), [size]) for _ in range(DRAWS)]
            cells = []
            for way in WAYS.values():
                of_draws = [figures(scores[b], targets[b], way(scores[a], targets[a])) for a, b in drawn]
                cells.append(" / ".join(f"{value:.1f}" for value in np.mean(of_draws, axis=0)))
            print(f"| {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
