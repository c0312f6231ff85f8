"""A model for use: what a finished run chose, trained again on the images that chose and measured it too (ours).

Where labels are few, those of val and test are too good to leave out of the model that is used in the end. Its figures
are those of the finished run, since no image is left that could measure it.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from sspa.shared.errors import UserError
from sspa.shared.file_digests import file_digests
from sspa.stage2_training.compute.processes import ALONE, Processes
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.data.dataset import Split, with_splits_in_train
from sspa.stage2_training.model.options import View
from sspa.stage2_training.model.recognizer import weights_of
from sspa.stage2_training.runs.inputs import RunInputs, own_dataset
from sspa.stage2_training.runs.records import RefitRecord, written
from sspa.stage2_training.runs.run_folder import WEIGHTS, RunFolder, check_free, create_refit_folder, open_run_folder
from sspa.stage2_training.runs.stored_tensors import read_weights, write_weights
from sspa.stage2_training.training.event_log import EventLog
from sspa.stage2_training.training.interruption import Interruption
from sspa.stage2_training.training.optimization import Optimization
from sspa.stage2_training.training.result import RunResult, result_record, write_descriptions
from sspa.stage2_training.training.train_state import TrainState
from sspa.stage2_training.training.trainer import Trainer, carry_out, check_options

# Of the finished run, since they are figures, or were chosen by what is trained on now.
_ADOPTED = ("metrics.jsonl", "predictions.safetensors", "test_ids.json", "thresholds.json")


def refit(
    measured: RunFolder,
    out: Path,
    device: torch.device,
    root: Path | None = None,
    keep_test: bool = False,
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
        resume: resume in `out`, if it holds a refit that was stopped.
        processes: as of `run`.

    Raises:
        UserError: anything the user can fix, such as data that is not what the run was measured on.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM, after saving.
    """
    config = processes.everywhere(lambda: _config(measured, root))
    return _refit(measured, config, out, device, keep_test, resume, processes, None)


def _refit(
    measured: RunFolder,
    config: RunConfig,
    out: Path,
    device: torch.device,
    keep_test: bool,
    resume: bool,
    processes: Processes,
    inputs: RunInputs | None,
) -> RunResult:
    """As `refit`; `inputs` are those of the run whose teacher this is, if it is one."""
    processes.everywhere(lambda: check_options(config, device))
    folder = processes.first(lambda: _folder_before(measured, out, keep_test, resume))

    def make() -> Trainer:
        return _Refitting(measured, config, inputs or _inputs(measured, config), device, processes, out, keep_test)

    return carry_out(make, folder, config, processes, is_teacher=inputs is not None)


def _config(measured: RunFolder, root: Path | None) -> RunConfig:
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
    if root is None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"root": root})})


def _inputs(measured: RunFolder, config: RunConfig) -> RunInputs:
    about = measured.record()
    dataset = own_dataset(config, protocol=about.protocol.own)
    if dataset.content_hash != about.data.hash:
        raise UserError(f"{measured.path}: the data {dataset.name} has changed since this run; make the run anew first")
    return RunInputs(dataset, measured.knowledge())


def _folder_before(measured: RunFolder, out: Path, keep_test: bool, resume: bool) -> RunFolder | None:
    if not resume or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        check_free(out)
        return None
    folder = open_run_folder(out)
    begun = folder.record().refit
    if begun is None or begun.weights != _digest(measured):
        raise UserError(f"{out}: is not a refit of {measured.path}; choose another --out")
    if measured.result().measured == "test" and keep_test == ("test" in begun.splits):
        raise UserError(f"{out}: was started {'without' if keep_test else 'with'} --keep-test; resume it likewise")
    if folder.finished:
        raise UserError(f"{out}: this refit is finished; there is nothing to resume")
    return folder


def _digest(measured: RunFolder) -> str:
    return file_digests([measured.file(WEIGHTS)], "weights")[0]


class _Refitting(Trainer):
    """Trains for as many epochs as val once chose, and scores nothing."""

    def __init__(
        self,
        measured: RunFolder,
        config: RunConfig,
        inputs: RunInputs,
        device: torch.device,
        processes: Processes,
        out: Path,
        keep_test: bool,
    ) -> None:
        self.measured, self.keep_test, self.before, self.folder = measured, keep_test, inputs, out
        self.added = [name for name in inputs.dataset.splits if name not in ("train", *(["test"] if keep_test else []))]
        merged = replace(inputs, dataset=with_splits_in_train(inputs.dataset, self.added))
        super().__init__(config, merged, device, processes)
        self.found = measured.result()
        self.last_epoch = self.found.best_epoch

    def create_folder(self) -> RunFolder:
        about = RefitRecord(
            of=str(self.measured.path),
            weights=_digest(self.measured),
            splits=("train", *self.added),
            images=len(self.train_split),
        )
        return create_refit_folder(self.folder, self.config, self.measured, about, self.device, self.processes.world)

    def make_teacher(self, config: RunConfig, path: Path) -> None:
        teacher = RunFolder(self.measured.file(path.name))
        resume = self.processes.first((path / "run.json").exists)
        _refit(teacher, config, path, self.device, self.keep_test, resume, self.processes, self.before)

    def wanted_features(self) -> list[tuple[list[Split], tuple[View, ...]]]:
        return [([self.train_split], self.config.training.views)]

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

        def write() -> None:
            for name in _ADOPTED:
                shutil.copyfile(self.measured.file(name), folder.file(name))
            with weights_of(optimization.ema.module, optimization.trained):
                self._adopt_what_val_determined(optimization.modules)
                write_weights(folder, optimization.modules)
            costs = self.costs(state, started)
            record = result_record(result, self.recognizer, self.config, costs, self.taught)
            folder.write_json("result.json", written(record))

        self.processes.first(write)
        return result

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
