"""How many photos must be reviewed: the truth answers, in the order that a strategy asks, and the model learns.

    python benchmarks/review_simulation.py --root VOCdevkit --knowledge artifacts/voc.parquet --out review-simulation

All of VOC2007's train photos start without labels, and there is no val: everything is learned from what was answered,
with the recipe and the strategies of `sspa-train review`. `--measure val` is for choosing; test is measured once. What
is finished is kept in OUT, one JSON file each, and with `--answers 120` the first 120 answers as a review file, which
`sspa-train data prepare custom --review` reads. `--photos FOLDER` makes a folder of the train photos alone for that.
"""

import argparse
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import torch

from sspa.shared.knowledge import names_only, read_knowledge
from sspa.shared.terminal import say
from sspa.stage2_training.cli.options import FAST_MODEL
from sspa.stage2_training.data.dataset import load_dataset
from sspa.stage2_training.data.reviewed.entries import Answer, Chosen
from sspa.stage2_training.data.reviewed.review_file import open_review
from sspa.stage2_training.evaluation.metrics import class_average_precisions
from sspa.stage2_training.features.batches import FeatureBatches
from sspa.stage2_training.features.kept_features import FeatureCache
from sspa.stage2_training.inference.scoring import score
from sspa.stage2_training.review.command import review_config
from sspa.stage2_training.review.learning import Learner
from sspa.stage2_training.review.strategy import AtRandom, RareLabelsFirst, Strategy

# As for `compare`: a linear probe has a rate and a loss of its own.
_LINEAR = ("model.head=linear", "loss.kind=bce", "training.lr=0.0012", "training.weight_decay=0.0001")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--data", default="voc2007")
    parser.add_argument("--knowledge", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--measure", choices=("val", "test"), default="test")
    parser.add_argument("--strategies", default="useful,random")
    parser.add_argument("--models", default="sspa,names,linear")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--at", default="25,50,100,120,200")
    parser.add_argument("--answers", type=int, default=0)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    at = [int(count) for count in options.at.split(",")]
    arms = itertools.product(options.models.split(","), options.strategies.split(","), options.seeds.split(","))
    for model, strategy, seed in arms:
        file = options.out / f"{model}-{strategy}-{seed}.json"
        if not file.is_file():
            file.write_text(json.dumps(_simulated(options, model, strategy, int(seed), at)) + "\n", encoding="utf-8")
        curve = json.loads(file.read_text(encoding="utf-8"))
        print(f"{model} {strategy} {seed}: " + ", ".join(f"{count} {value:.2f}" for count, value in curve.items()))


def _simulated(options: argparse.Namespace, model: str, asks: str, seed: int, at: list[int]) -> dict[int, float]:
    """mAP on the measured split, by the number of answered photos."""
    dataset = load_dataset(options.data, options.root)
    pool, measured = dataset.splits["train"], dataset.splits[options.measure]
    if options.photos is not None and not options.photos.exists():
        options.photos.mkdir(parents=True)
        for path in pool.paths:
            shutil.copyfile(path, options.photos / path.name)
    knowledge = read_knowledge(options.knowledge).for_labels(dataset.labels.keys)
    if model == "names":
        knowledge = names_only(dataset.labels)
    settings = [*(_LINEAR if model == "linear" else FAST_MODEL), *options.settings, f"training.seed={seed}"]
    config = review_config(options.knowledge, dataset.labels.domain, [], settings, ())
    device, paths = torch.device("cpu"), [str(path.relative_to(dataset.root)) for path in pool.paths]
    learner = Learner(config, knowledge, dataset.root, paths, device)
    learner.read_photos()
    cache = FeatureCache(learner.recognizer().backbone, device, config.data.workers)
    cache.keep(([measured], config.evaluation.views))
    # All views, as for `--tags`; the suggestions, by which is chosen what to ask, have one.
    views = [
        FeatureBatches(cache.kept([measured], view), measured.targets, 64, device) for view in config.evaluation.views
    ]
    strategy: Strategy = AtRandom(seed) if asks == "random" else RareLabelsFirst(learner.pooled, seed)
    known, answered = np.full_like(pool.targets, -1), np.zeros(len(pool), dtype=bool)
    curve: dict[int, float] = {}
    asked: list[tuple[int, Chosen]] = []
    probabilities = learner.probabilities()
    learned_from = 0
    for number in range(1, max(at) + 1):
        ((row, why),) = strategy.choose(probabilities, known, answered, 1)
        answered[row], known[row] = True, pool.targets[row]
        asked.append((row, why))
        # As the session does, and where it is measured.
        due = number >= max(5, learned_from + max(10, learned_from // 10)) if learned_from else number == 5
        if (due and asks != "random") or number in at:
            rows = np.flatnonzero(answered)
            learner.learn(rows, known[rows], lambda: True)
            if number in at and model != "linear":
                learner.teach_itself(rows, known[rows], np.flatnonzero(~answered), lambda: True)
            probabilities, learned_from = learner.probabilities(), number
        if number == options.answers:
            review = options.out / f"{model}-{asks}-{seed}.review.jsonl"
            with open_review(review, dataset.labels) as file:
                for one, chosen in asked:
                    marks = dict(zip(dataset.labels.keys, known[one].tolist(), strict=True))
                    file.add(Answer(path=pool.paths[one].name, marks=marks, chosen=chosen, by="benchmark"))
        if number in at:
            scored = score(learner.recognizer(), views)["both"]
            precisions = class_average_precisions(scored, measured.targets, dataset.protocol)
            curve[number] = round(100 * float(np.nanmean(precisions)), 3)
            say(f"{model}, {asks}, seed {seed}: {number} photos, {curve[number]:.2f}")
    return curve


if __name__ == "__main__":
    main()
