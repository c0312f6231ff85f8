"""A model for use: what a finished run chose, trained again on the images that chose and measured it too (ours).

Where labels are few, those of val and test are too good to leave out of the model that is used in the end. Its figures
are those of the finished run, since no image is left that could measure it; folds can: the same is done several times
without a part of the images, which then measures it, and all parts together are all images.
"""

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from sspa.shared.errors import UserError
from sspa.shared.file_digests import file_digests
from sspa.shared.terminal import say
from sspa.shared.time_left import TimeLeft
from sspa.stage2_training.compute.processes import ALONE, Processes
from sspa.stage2_training.config.run_config import OWN_TEACHER, RunConfig
from sspa.stage2_training.data.dataset import (
    Dataset,
    Split,
    load_manifest,
    with_fold_as_test,
    with_splits_in_train,
)
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.data.splitting import Fold
from sspa.stage2_training.inference.scoring import metrics_by_branch
from sspa.stage2_training.model.options import View
from sspa.stage2_training.model.recognizer import weights_of
from sspa.stage2_training.runs.inputs import RunInputs, own_dataset
from sspa.stage2_training.runs.records import FoldsRecord, RefitRecord, written
from sspa.stage2_training.runs.run_folder import WEIGHTS, RunFolder, check_free, create_refit_folder, open_run_folder
from sspa.stage2_training.runs.stored_tensors import read_weights, write_predictions, write_weights
from sspa.stage2_training.training.event_log import EventLog
from sspa.stage2_training.training.folds import measured_by_folds
from sspa.stage2_training.training.interruption import Interruption
from sspa.stage2_training.training.optimization import Optimization
from sspa.stage2_training.training.result import RunResult, result_record, write_descriptions
from sspa.stage2_training.training.train_state import TrainState
from sspa.stage2_training.training.trainer import Trainer, carry_out, check_options

# Of the finished run, since they are figures, or were chosen by what is trained on now.
_ADOPTED = ("metrics.jsonl", "predictions.safetensors", "test_ids.json", "thresholds.json")


@dataclass(frozen=True)
class _Way:
    """How to refit: whether without test, measured by how many folds, without which fold if this is one of them.

    `manifest`: of a fold, the data set's, which says what images belong together; read once for all of them.
    """

    keep_test: bool
    folds: int | None = None
    fold: Fold | None = None
    manifest: Manifest | None = None


def refit(
    measured: RunFolder,
    out: Path,
    device: torch.device,
    root: Path | None = None,
    keep_test: bool = False,
    folds: int | None = None,
    resume: bool = False,
    processes: Processes = ALONE,
) -> RunResult:
    """Train what `measured` chose on its val and test too; its figures, in a folder of the same form.

    Choices are adopted: the number of epochs (the learning rates are those of its first ones), the branches' shares,
    thresholds, and logit biases if the loss does not determine them. Initial values, what descriptions are used, and
    what its own teacher teaches are made anew, from all images.

    Args:
        measured: a finished run.
        out: the folder.
        root: where the images are now.
        keep_test: train on val, but not on test.
        folds: measure it by this number of models, each of which misses a part of the images; their predictions also
            tune the thresholds. The refit itself is the same with them and without.
        resume: resume in `out`, if it holds a refit that was stopped.
        processes: as of `run`.

    Raises:
        UserError: anything the user can fix, such as data that is not what the run was measured on.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM, after saving.
    """
    config = processes.everywhere(lambda: _config(measured, root, folds))
    return _refit(measured, config, out, device, _Way(keep_test, folds), resume, processes, None)


def _refit(
    measured: RunFolder,
    config: RunConfig,
    out: Path,
    device: torch.device,
    way: _Way,
    resume: bool,
    processes: Processes,
    inputs: RunInputs | None,
) -> RunResult:
    """As `refit`; `inputs` are those of the refit whose teacher or fold this is, if it is one."""
    processes.everywhere(lambda: check_options(config, device))
    folder = processes.first(lambda: _folder_before(measured, out, way, resume))

    def make() -> Trainer:
        return _Refitting(measured, config, inputs or _inputs(measured, config), device, processes, out, way)

    return carry_out(make, folder, config, processes, is_teacher=inputs is not None)


def _config(measured: RunFolder, root: Path | None, folds: int | None) -> RunConfig:
    config = measured.config()
    if lacking := [name for name in ("result.json", *_ADOPTED) if not measured.file(name).is_file()]:
        raise UserError(
            f"{measured.path}: has no {lacking[0]}; a refit is made of a finished run itself, not of a package"
        )
    if refitted := measured.record().refit:
        raise UserError(f"{measured.path}: is a refit already, of {refitted.of}")
    if measured.record().data.unseen:
        raise UserError(
            f"{measured.path}: measures labels that training does not see (data.unseen), which a refit would show it"
        )
    if folds is not None and config.teacher.run not in (None, OWN_TEACHER):
        raise UserError(
            f"{measured.path}: learned from {config.teacher.run}, which may have seen the images of a fold; --folds is "
            "for runs without a teacher and with --teacher self"
        )
    if root is None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"root": root})})


def _inputs(measured: RunFolder, config: RunConfig) -> RunInputs:
    about = measured.record()
    dataset = own_dataset(config, protocol=about.protocol.own)
    if dataset.content_hash != about.data.hash:
        raise UserError(f"{measured.path}: the data {dataset.name} has changed since this run; make the run anew first")
    return RunInputs(dataset, measured.knowledge())


def _manifest(config: RunConfig, measured: RunFolder) -> Manifest:
    return load_manifest(config.data.name, config.data.root, measured.record().protocol.own or config.data.protocol)[0]


def _folder_before(measured: RunFolder, out: Path, way: _Way, resume: bool) -> RunFolder | None:
    if not resume or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        check_free(out)
        return None
    folder = open_run_folder(out)
    begun = folder.record().refit
    if begun is None or begun.weights != _digest(measured):
        raise UserError(f"{out}: is not a refit of {measured.path}; choose another --out")
    if measured.result().measured == "test" and way.keep_test == ("test" in begun.splits):
        raise UserError(f"{out}: was started {'without' if way.keep_test else 'with'} --keep-test; resume it likewise")
    if begun.folds != way.folds:
        started = f"with --folds {begun.folds}" if begun.folds else "without --folds"
        raise UserError(f"{out}: was started {started}; resume it likewise")
    if folder.finished:
        raise UserError(f"{out}: this refit is finished; there is nothing to resume")
    return folder


def _digest(measured: RunFolder) -> str:
    return file_digests([measured.file(WEIGHTS)], "weights")[0]


class _Refitting(Trainer):
    """Trains for as many epochs as val once chose, and scores nothing but a fold that is held out."""

    def __init__(
        self,
        measured: RunFolder,
        config: RunConfig,
        inputs: RunInputs,
        device: torch.device,
        processes: Processes,
        out: Path,
        way: _Way,
    ) -> None:
        self.measured, self.way, self.before, self.folder = measured, way, inputs, out
        left_out = ("train", "test") if way.keep_test else ("train",)
        self.added = [name for name in inputs.dataset.splits if name not in left_out]
        dataset = with_splits_in_train(inputs.dataset, self.added)
        self.manifest = None if way.folds is None else _manifest(config, measured)
        if way.folds is not None and self.manifest is not None:  # rejects too few images before anything is written
            with_fold_as_test(dataset, self.manifest, Fold(1, way.folds))
        if way.fold is not None and way.manifest is not None:
            dataset = with_fold_as_test(dataset, way.manifest, way.fold)
        super().__init__(config, replace(inputs, dataset=dataset), device, processes)
        self.found = measured.result()
        self.folds: list[RunFolder] = []
        self.last_epoch = self.found.best_epoch

    def create_folder(self) -> RunFolder:
        about = RefitRecord(
            of=str(self.measured.path),
            weights=_digest(self.measured),
            splits=("train", *self.added),
            images=len(self.train_split),
            folds=self.way.folds,
            fold=None if self.way.fold is None else f"{self.way.fold.number}/{self.way.fold.count}",
        )
        return create_refit_folder(self.folder, self.config, self.measured, about, self.device, self.processes.world)

    def make_teacher(self, config: RunConfig, path: Path) -> None:
        teacher = RunFolder(self.measured.file(path.name))
        self._part(teacher, config, path, replace(self.way, folds=None))

    def _part(self, measured: RunFolder, config: RunConfig, path: Path, way: _Way) -> RunFolder:
        """The refit of this one's teacher, or one of its folds, in `path`; resumed if it was begun."""
        folder = RunFolder(path)
        if not self.processes.first(lambda: folder.finished):
            resume = self.processes.first((path / "run.json").exists)
            _refit(measured, config, path, self.device, way, resume, self.processes, self.before)
        return folder

    def train(self, folder: RunFolder, interruption: Interruption) -> RunResult:
        """As every training; its folds come first, so that a result is complete."""
        if self.way.folds is not None:
            # The refit itself is to be the same with folds and without.
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                self._make_folds(folder.file("folds"), self.way.folds)
        return super().train(folder, interruption)

    def _make_folds(self, path: Path, count: int) -> None:
        pace, made = TimeLeft(), 0
        for number in range(1, count + 1):
            fold, finished = Fold(number, count), RunFolder(path / f"{number}").finished
            # The refit takes about as long as a fold.
            say(f"{fold}: trained without it, measured on it{pace.words(made, count - number + 2)}")
            way = _Way(self.way.keep_test, fold=fold, manifest=self.manifest)
            self.folds.append(self._part(self.measured, self.config, path / f"{number}", way))
            made += not finished

    def wanted_features(self) -> list[tuple[list[Split], tuple[View, ...]]]:
        trained = ([self.train_split], self.config.training.views)
        return [trained] if self.held_out is None else [([self.held_out], self.config.evaluation.views), trained]

    def read(self, dataset: Dataset) -> None:
        super().read(dataset)
        self.held_out = self.inputs.split("test") if self.way.fold else None

    def begin(self, folder: RunFolder) -> TrainState:
        self.processes.first(lambda: write_descriptions(folder, self.recognizer.head, self.given.dataset.labels.keys))
        return TrainState(best_epoch=self.last_epoch)

    def after_epoch(
        self,
        folder: RunFolder,
        optimization: Optimization,
        steps: int,
        state: TrainState,
        interruption: Interruption,
        log: EventLog,
    ) -> str:
        return f"epoch {state.epoch}: loss {state.losses / steps:.3f}"

    def finish(self, folder: RunFolder, optimization: Optimization, state: TrainState, started: float) -> RunResult:
        found = self.found
        result = RunResult(
            folder, found.best_epoch, found.measured, dict(found.val), dict(found.test), dict(found.untrained_test)
        )
        for name in _ADOPTED:
            self.processes.first(partial(shutil.copyfile, self.measured.file(name), folder.file(name)))
        with weights_of(optimization.ema.module, optimization.trained):
            self.processes.everywhere(lambda: self._adopt_what_val_determined(optimization.modules))
            self.processes.first(lambda: write_weights(folder, optimization.modules))
            if self.held_out is not None:
                result = self._with_fold(result, self.held_out)
        measured = self.processes.first(lambda: self._measured_by_folds(folder))
        costs = self.costs(state, started)
        record = result_record(result, self.recognizer, self.config, costs, self.taught)
        record = record.model_copy(update={"folds": measured})
        self.processes.first(lambda: folder.write_json("result.json", written(record)))
        return result

    def _with_fold(self, result: RunResult, held_out: Split) -> RunResult:
        """The result with the figures of the fold in place of the finished run's."""
        scored = self.score(held_out, str(self.way.fold))
        self.processes.first(lambda: write_predictions(result.folder, scored, held_out))
        return replace(result, measured="test", test=metrics_by_branch(scored, held_out, self.dataset))

    def _measured_by_folds(self, folder: RunFolder) -> FoldsRecord | None:
        """The figures of the folds together, whose predictions tune the thresholds; None if there are none."""
        if not self.folds:
            return None
        record, thresholds = measured_by_folds(self.folds, self.dataset)
        folder.write_thresholds(thresholds, self.dataset.labels.keys)
        return record

    @torch.no_grad()
    def _adopt_what_val_determined(self, modules: torch.nn.Module) -> None:
        """The branches' shares, and biases that the loss does not determine, from the finished run's weights."""
        head = self.recognizer.head
        own = {name: tensor.clone() for name, tensor in modules.state_dict().items()}
        adopted: list[torch.Tensor] = [*head.logit_biases().values()] if self.config.loss.ignores_shift else []
        adopted += [] if head.branch_shares is None else [head.branch_shares]
        read_weights(self.measured, modules)
        values = [tensor.detach().clone() for tensor in adopted]
        modules.load_state_dict(own)
        for tensor, value in zip(adopted, values, strict=True):
            tensor.copy_(value)
