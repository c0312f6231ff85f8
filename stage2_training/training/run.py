"""One run: prepare, train, choose the best epoch on val, score test once, write a run folder.

Where val is too small to choose by, the last epoch is kept.

Killed at any moment and restarted with `resume`, it gives bit-identical results; see `checkpoint` for what is saved.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.compute.processes import ALONE, Processes
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.data.dataset import Dataset, Split
from sspa.stage2_training.evaluation.metrics import Metrics, Probabilities, branch_title
from sspa.stage2_training.evaluation.thresholds import tune_each
from sspa.stage2_training.inference.scoring import metrics_by_branch
from sspa.stage2_training.model.options import View
from sspa.stage2_training.model.recognizer import weights_of
from sspa.stage2_training.runs.inputs import RunInputs, open_inputs
from sspa.stage2_training.runs.records import FEWEST_TO_CHOOSE, written
from sspa.stage2_training.runs.resuming import folder_to_resume
from sspa.stage2_training.runs.run_folder import RunFolder, check_free, create_run_folder
from sspa.stage2_training.runs.stored_tensors import read_predictions, read_weights, write_predictions, write_weights
from sspa.stage2_training.training.branch_shares import fitted_shares
from sspa.stage2_training.training.event_log import EventLog
from sspa.stage2_training.training.interruption import Interruption
from sspa.stage2_training.training.logit_bias import fitted_biases
from sspa.stage2_training.training.optimization import Optimization
from sspa.stage2_training.training.result import RunResult, result_record, write_descriptions
from sspa.stage2_training.training.train_state import TrainState
from sspa.stage2_training.training.trainer import Trainer, carry_out, check_options

# The untrained model's scores of the test split, saved until the result is written.
_UNTRAINED = "checkpoints/untrained.safetensors"


def run(
    config: RunConfig,
    out: Path | None,
    device: torch.device,
    resume: bool = False,
    processes: Processes = ALONE,
    inputs: RunInputs | None = None,
    is_teacher: bool = False,
) -> RunResult:
    """Train and evaluate; the module's docstring gives the order of steps.

    Args:
        out: the run's folder; if None, a new one under runs/.
        resume: resume in `out`, or in the newest folder under runs/ with this configuration.
        processes: the processes that train together, this one included; the first one writes.
        inputs: what `open_inputs` says of `config`, if that is known already.
        is_teacher: another run makes this one, and says how to resume.

    Raises:
        UserError: anything the user can fix, if possible before anything is written; also if the run to resume is
            already finished.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM, after saving.
    """
    processes.everywhere(lambda: check_options(config, device))
    folder = processes.first(lambda: _folder_before(config, out, resume))

    def make() -> Trainer:
        return _Measuring(config, inputs or open_inputs(config), device, processes, out)

    return carry_out(make, folder, config, processes, is_teacher)


def _folder_before(config: RunConfig, out: Path | None, resume: bool) -> RunFolder | None:
    if not resume:
        check_free(out)
        return None
    folder = folder_to_resume(out, config)
    if folder is not None and folder.finished:  # the command checks first, see `finished_run`
        raise UserError(f"{folder.path}: this run is finished; there is nothing to resume")
    return folder


class _Measuring(Trainer):
    """Chooses the epoch by val, and measures it on test.

    `folder` is where; a new one under runs/ if None.
    """

    def __init__(
        self,
        config: RunConfig,
        inputs: RunInputs,
        device: torch.device,
        processes: Processes,
        folder: Path | None,
    ) -> None:
        self.folder = folder
        super().__init__(config, inputs, device, processes)

    def read(self, dataset: Dataset) -> None:
        super().read(dataset)
        self.val, self.test = (self.inputs.split(name) for name in ("val", dataset.measured))

    def create_folder(self) -> RunFolder:
        backbone, world = self.recognizer.backbone, self.processes.world
        return create_run_folder(self.folder, self.config, self.dataset, self.knowledge, backbone, self.device, world)

    def make_teacher(self, config: RunConfig, path: Path) -> None:
        resume = self.processes.first((path / "run.json").exists)
        run(config, path, self.device, resume, self.processes, self.given, is_teacher=True)

    def wanted_features(self) -> list[tuple[list[Split], tuple[View, ...]]]:
        # Where there is no test, test is val.
        scored = [self.train_split, self.val, *([self.test] if self.test is not self.val else [])]
        return [(scored, self.config.evaluation.views), ([self.train_split], self.config.training.views)]

    def begin(self, folder: RunFolder) -> TrainState:
        """Score the untrained model, the best epoch until another is better."""
        untrained = self.score(self.test, f"{self.test.name}, untrained")
        of_val = untrained if self.test is self.val else self.score(self.val, "val, untrained")
        val = metrics_by_branch(of_val, self.val, self.dataset)

        def write() -> int:
            folder.cut_metrics(0)
            write_predictions(folder, untrained, self.test, _UNTRAINED)
            write_weights(folder, self.recognizer.trained_modules())
            write_descriptions(folder, self.recognizer.head, self.dataset.labels.keys)
            return folder.append("metrics.jsonl", _epoch_line(0, {}, val))

        return TrainState(best_map=val["both"].mAP, metrics_length=self.processes.first(write))

    def after_epoch(
        self,
        folder: RunFolder,
        optimization: Optimization,
        steps: int,
        state: TrainState,
        interruption: Interruption,
        log: EventLog,
    ) -> str:
        """Score val with the averaged weights, and save them if they are the best so far; the figures in words."""
        if state.epoch % self.config.training.score_every and state.epoch != self.last_epoch:
            return ""
        # Processes score different numbers of batches, so stopping between them is only possible with one process.
        stop = (lambda: interruption.stop_if(interruption.requested)) if self.processes.world == 1 else lambda: None
        loss = state.losses / steps
        with weights_of(optimization.ema.module, optimization.trained):
            scored = self.score(self.val, "val", stop)
            with self._fitted_to_val(scored) as probabilities:
                val = metrics_by_branch(probabilities, self.val, self.dataset)
                if val["both"].mAP > state.best_map or len(self.val) < FEWEST_TO_CHOOSE:
                    state.best_map, state.best_epoch = val["both"].mAP, state.epoch
                    self.processes.first(lambda: write_weights(folder, optimization.modules))
        trained = {"loss": loss, "learning_rate": optimization.learning_rate}
        line = _epoch_line(state.epoch, trained, val)
        state.metrics_length = self.processes.first(lambda: folder.append("metrics.jsonl", line))
        times = {
            "epoch": state.epoch,
            "processes": self.processes.world,
            "train_seconds_so_far": round(state.seconds, 2),
        }
        self.processes.first(lambda: folder.append("times.jsonl", times))
        log.add_scalar("val mAP", val["both"].mAP, optimization.step_count)
        figures = ", ".join(f"{branch_title(branch)} {100 * metrics.mAP:.2f}" for branch, metrics in val.items())
        return f"epoch {state.epoch}: loss {loss:.3f}, val mAP {figures} (best so far: epoch {state.best_epoch})"

    @contextmanager
    def _fitted_to_val(self, scored: Probabilities) -> Iterator[Probabilities]:
        """Within the block, what val determines fits it; yields val's probabilities with that."""
        head, targets = self.recognizer.head, self.val.targets
        with fitted_biases(head, self.config.loss, scored, targets) as probabilities:
            if self.config.training.branch_shares == "equal":
                yield probabilities
                return
            with fitted_shares(head, probabilities, targets, self.dataset.protocol) as mixed:
                yield mixed

    def stops(self, state: TrainState) -> bool:
        options = self.config.training
        patience, trained = options.early_stopping, state.epoch - 1
        if patience is None or state.step or trained % options.score_every or trained - state.best_epoch < patience:
            return False
        say(f"early stopping: no better val mAP in {trained - state.best_epoch} epochs")
        return True

    def finish(self, folder: RunFolder, optimization: Optimization, state: TrainState, started: float) -> RunResult:
        """Score test with the best epoch's weights, and write the results."""
        processes, dataset, test, val = self.processes, self.dataset, self.test, self.val
        processes.first(lambda: read_weights(folder, optimization.modules))
        processes.same_everywhere(optimization.modules)
        untrained, _ = processes.first(lambda: read_predictions(folder, _UNTRAINED))
        of_test = self.score(test, test.name)
        of_val = of_test if test is val else self.score(val, "val")
        result = RunResult(
            folder,
            state.best_epoch,
            test.name,
            metrics_by_branch(of_val, val, dataset),
            metrics_by_branch(of_test, test, dataset),
            metrics_by_branch(untrained, test, dataset),
        )
        tuned = tune_each(of_val["both"], val.targets)

        def write() -> None:
            write_predictions(folder, of_test, test)
            folder.write_thresholds(tuned, dataset.labels.keys)
            costs = self.costs(state, started)
            folder.write_json(
                "result.json", written(result_record(result, self.recognizer, self.config, costs, self.taught))
            )

        processes.first(write)
        return result


def _epoch_line(epoch: int, trained: dict[str, float], val: dict[str, Metrics]) -> dict[str, Any]:
    return {"epoch": epoch, **trained, "val": {branch: metrics.to_dict() for branch, metrics in val.items()}}
