"""One run: prepare, train, choose the best epoch on val, score test once, leave a folder."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sspa.shared.errors import UserError
from sspa.shared.knowledge import Knowledge, read_knowledge
from sspa.shared.terminal import progress, say
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.configuration import RunConfig, View
from sspa.stage2_training.data.dataset import Dataset, Split, load_dataset
from sspa.stage2_training.data.loading import PictureDataset, PictureLoader
from sspa.stage2_training.data.transforms import TransformOptions, make_transform
from sspa.stage2_training.evaluation.metrics import Metrics
from sspa.stage2_training.evaluation.thresholds import tune_each
from sspa.stage2_training.model.contract import trainable_count
from sspa.stage2_training.model.heads import create_head
from sspa.stage2_training.model.losses import total_loss
from sspa.stage2_training.model.recognizer import Recognizer, weights_of
from sspa.stage2_training.training.batches import Batches, FeatureBatches, PictureBatches
from sspa.stage2_training.training.features import kept_features
from sspa.stage2_training.training.optimization import Optimization, describe_groups, make_optimization
from sspa.stage2_training.training.run_folder import RunFolder, create_run_folder
from sspa.stage2_training.training.scoring import Probabilities, metrics_by_branch, score

# Features of so many training pictures say where data-dependent starting values begin.
_SAMPLE = 256


@dataclass(frozen=True)
class RunResult:
    """Test metrics by branch ("region", "global", "both"), of the best epoch and of the untrained model."""

    folder: RunFolder
    best_epoch: int
    val: dict[str, Metrics]
    test: dict[str, Metrics]
    untrained: dict[str, Metrics]


def choose_device(wanted: str) -> torch.device:
    """auto takes a GPU where there is one.

    Raises:
        UserError: a GPU was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device here; use --device auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


class Inputs:
    """The batches of a data set for one backbone: kept features where the tower is frozen, pictures otherwise."""

    def __init__(self, config: RunConfig, dataset: Dataset, backbone: Backbone, device: torch.device) -> None:
        self.config, self.dataset, self.backbone, self.device = config, dataset, backbone, device
        self.frozen = config.backbone.tower == "frozen"

    def keep_features(self, splits: list[Split], views: tuple[View, ...]) -> None:
        """Compute what is missing of the features of `splits`, all at once, if the tower is frozen."""
        if self.frozen:
            for view in views:
                kept_features(self.backbone, splits, view, self.device, self.config.data.workers)

    def training(self) -> Batches:
        """The train split, shuffled, varied."""
        options, split = self.config.training, self.split("train")
        if self.frozen:
            views = [self._kept(split, view) for view in options.views]
            return FeatureBatches(views, split.targets, options.batch_size, self.device, True, options.seed)
        data = self.config.data
        varied = TransformOptions(
            crop_scale=data.crop_scale,
            flip=0.5 if "mirrored" in options.views else 0.0,
            randaugment=data.randaugment,
            cutout=data.cutout,
        )
        transform = self._transform(train=True, options=varied)
        pictures = PictureDataset(split, transform, options.seed, unreadable="substitute")
        loader = PictureLoader(pictures, options.batch_size, shuffle=True, workers=data.workers, drop_last=True)
        return PictureBatches(loader, self.device)

    def scoring(self, split: Split) -> list[Batches]:
        """One split in its own order, once for each view."""
        options = self.config.evaluation
        if self.frozen:
            return [
                FeatureBatches([self._kept(split, view)], split.targets, options.batch_size, self.device)
                for view in options.views
            ]
        pictures = PictureDataset(split, self._transform(train=False, options=TransformOptions()))
        loader = PictureLoader(pictures, options.batch_size, workers=self.config.data.workers)
        return [PictureBatches(loader, self.device, view == "mirrored") for view in options.views]

    def split(self, name: str) -> Split:
        """One split of the data set.

        Raises:
            UserError: the data set has no such split.
        """
        if name not in self.dataset.splits:
            raise UserError(f"{self.dataset.name}: has no {name} split, only {', '.join(self.dataset.splits)}")
        return self.dataset.splits[name]

    def _kept(self, split: Split, view: View) -> Any:
        return kept_features(self.backbone, [split], view, self.device, self.config.data.workers)[0]

    def _transform(self, train: bool, options: TransformOptions) -> Any:
        return make_transform(self.backbone.image_size, self.backbone.mean, self.backbone.std, train, options)


def make_recognizer(config: RunConfig, knowledge: Knowledge, device: torch.device) -> Recognizer:
    """The model of `config` for the labels of `knowledge`, untrained; data-dependent starting values not set."""
    from sspa.stage2_training.backbones.factory import create_backbone
    from sspa.stage2_training.backbones.trainable import describe_trainable, set_trainable

    options = config.backbone
    torch.manual_seed(config.training.seed)
    backbone = create_backbone(
        options.name,
        weights=options.weights,
        image_size=options.image_size,
        regions=options.regions,
        bf16=config.training.precision == "bf16",
    ).to(device)
    set_trainable(backbone, options.tower)
    say(f"{backbone.name}: {backbone.description}; on {device}; {describe_trainable(backbone)}")
    head = create_head(config.model, backbone.width).to(device)
    head.bind(backbone, knowledge)
    return Recognizer(backbone, head.to(device))


def run(config: RunConfig, out: Path | None, device: torch.device) -> RunResult:
    """Train and evaluate; see the module's docstring for the order of things.

    Raises:
        UserError: whatever the user can mend, before anything is written where that can be told.
    """
    started = time.monotonic()
    dataset = load_dataset(
        config.data.name,
        config.data.root,
        config.data.protocol,
        config.data.val_fraction,
        config.training.seed,
        config.data.subset,
    )
    knowledge = read_knowledge(config.knowledge).for_labels(dataset.labels.keys)
    say(f"data: {dataset.name}, " + ", ".join(f"{len(split)} {name}" for name, split in dataset.splits.items()))
    say(f"protocol: {dataset.protocol}; {dataset.note}")
    recognizer = make_recognizer(config, knowledge, device)
    inputs = Inputs(config, dataset, recognizer.backbone, device)
    train, val, test = (inputs.split(name) for name in ("train", "val", "test"))
    folder = create_run_folder(out, config, dataset, knowledge)

    inputs.keep_features([train, val, test], config.evaluation.views)
    inputs.keep_features([train], config.training.views)
    batches = inputs.training()
    recognizer.head.initialise(_sample_features(recognizer, batches))
    optimization = make_optimization(recognizer, config.training, len(batches))
    say(
        f"training {trainable_count(recognizer):,} parameters for {config.training.epochs} epochs of "
        f"{len(batches)} steps: {describe_groups(optimization.optimizer.param_groups)}"
    )

    untrained = _score(recognizer, inputs, test, "test, untrained")
    folder.write_weights(recognizer.trained_modules())
    val_metrics = metrics_by_branch(_score(recognizer, inputs, val, "val, untrained"), val, dataset)
    best = (val_metrics["both"].mAP, 0, val_metrics)
    folder.append_metrics(_epoch_line(0, math.nan, math.nan, 0.0, val_metrics))
    for epoch in range(1, config.training.epochs + 1):
        loss, rate, seconds = _train_epoch(recognizer, optimization, batches, config, epoch)
        with weights_of(optimization.ema.module, optimization.modules):
            val_metrics = metrics_by_branch(_score(recognizer, inputs, val, "val"), val, dataset)
            folder.append_metrics(_epoch_line(epoch, loss, rate, seconds, val_metrics))
            if val_metrics["both"].mAP > best[0]:
                best = (val_metrics["both"].mAP, epoch, val_metrics)
                folder.write_weights(optimization.modules)
        figures = ", ".join(f"{branch} {100 * metrics.mAP:.2f}" for branch, metrics in val_metrics.items())
        say(f"epoch {epoch}: loss {loss:.3f}, val mAP {figures} (best so far: epoch {best[1]})")

    for line in batches.loader.report_substituted() if isinstance(batches, PictureBatches) else ():
        say(line)
    folder.read_weights(recognizer.trained_modules())
    probabilities = _score(recognizer, inputs, test, "test")
    result = RunResult(
        folder,
        best[1],
        best[2],
        metrics_by_branch(probabilities, test, dataset),
        metrics_by_branch(untrained, test, dataset),
    )
    folder.write_predictions(probabilities, test)
    tuned = tune_each(_score(recognizer, inputs, val, "val")["both"], val.targets)
    by_label = dict(zip(dataset.labels.keys, tuned.values.tolist(), strict=True))
    folder.write_json("thresholds.json", {"description": tuned.description, "values": by_label})
    folder.write_json("result.json", _result(result, recognizer, time.monotonic() - started))
    return result


def _train_epoch(
    recognizer: Recognizer, optimization: Optimization, batches: Batches, config: RunConfig, epoch: int
) -> tuple[float, float, float]:
    """Mean loss, the last learning rate, seconds.

    Raises:
        UserError: the loss is no longer a number.
    """
    recognizer.train()
    started, losses = time.monotonic(), []
    bf16 = config.training.precision == "bf16"
    with progress(f"epoch {epoch}/{config.training.epochs}", len(batches), "steps") as bar:
        for inputs, targets, _ in batches.epoch(epoch):
            with torch.autocast(targets.device.type, torch.bfloat16, enabled=bf16):
                prediction = recognizer(inputs)
            loss = total_loss(prediction.logits, targets, config.loss)
            if not torch.isfinite(loss):
                raise UserError(
                    f"epoch {epoch}, step {optimization.step_count + 1}: the loss is {loss.item()}; the best weights "
                    "so far are kept in the run folder. Lower training.lr, or training.clip_norm"
                )
            optimization.step(loss)
            losses.append(loss.item())
            bar.advance(note=f"loss {sum(losses[-20:]) / len(losses[-20:]):.3f}")
    return sum(losses) / len(losses), optimization.learning_rate, time.monotonic() - started


def _score(recognizer: Recognizer, inputs: Inputs, split: Split, name: str) -> Probabilities:
    views = inputs.scoring(split)
    with progress(f"scoring {name}", len(views) * len(split), "pictures") as bar:
        return score(recognizer, views, bar.advance)


@torch.inference_mode()
def _sample_features(recognizer: Recognizer, batches: Batches) -> Any:
    """Features of the first training pictures of epoch 0, about `_SAMPLE` of them."""
    pooled, regions = [], []
    for inputs, _, indices in batches.epoch(0):
        features = recognizer.backbone.encode_image(inputs) if isinstance(inputs, torch.Tensor) else inputs
        pooled.append(features.pooled)
        regions.append(features.regions)
        if len(pooled) * len(indices) >= _SAMPLE:
            break
    return type(features)(torch.cat(pooled), torch.cat(regions))


def _epoch_line(epoch: int, loss: float, rate: float, seconds: float, val: dict[str, Metrics]) -> dict[str, Any]:
    trained = {"loss": loss, "learning_rate": rate, "seconds": round(seconds, 2)} if epoch else {}
    return {"epoch": epoch, **trained, "val": {branch: metrics.to_dict() for branch, metrics in val.items()}}


def _result(result: RunResult, recognizer: Recognizer, seconds: float) -> dict[str, Any]:
    def plain(by_branch: dict[str, Metrics]) -> dict[str, Any]:
        return {branch: metrics.to_dict() for branch, metrics in by_branch.items()}

    return {
        "best_epoch": result.best_epoch,
        "test": plain(result.test),
        "val": plain(result.val),
        "untrained_test": plain(result.untrained),
        "backbone": {"name": recognizer.backbone.name, "description": recognizer.backbone.description},
        "trained_parameters": trainable_count(recognizer),
        "seconds": round(seconds, 1),
    }
