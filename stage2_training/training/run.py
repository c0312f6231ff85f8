"""One run: prepare, train, choose the best epoch on val, score test once, write a run folder.

Where val is too small to choose by, the last epoch is kept.

Killed at any moment and restarted with `resume`, it gives bit-identical results; see `checkpoint` for what is saved.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

from sspa.shared.errors import UserError
from sspa.shared.terminal import progress, say
from sspa.shared.time_left import TimeLeft
from sspa.stage2_training.backbones.unfamiliar_labels import say_unfamiliar
from sspa.stage2_training.compute.algorithms import compile_model, deterministic_algorithms
from sspa.stage2_training.compute.memory import peak_memory, recompute_activations
from sspa.stage2_training.compute.processes import ALONE, Processes
from sspa.stage2_training.config.run_config import RunConfig, TrainingOptions
from sspa.stage2_training.data.dataset import Dataset, Split, with_known_marks
from sspa.stage2_training.evaluation.metrics import Metrics, Probabilities, branch_title
from sspa.stage2_training.evaluation.thresholds import tune_each
from sspa.stage2_training.features.batches import Batches
from sspa.stage2_training.features.inputs import Inputs
from sspa.stage2_training.inference.loading import make_recognizer
from sspa.stage2_training.inference.scoring import metrics_by_branch, score_together
from sspa.stage2_training.model.contract import trainable_count
from sspa.stage2_training.model.losses import positive_shares
from sspa.stage2_training.model.recognizer import weights_of
from sspa.stage2_training.runs.inputs import RunInputs, open_inputs
from sspa.stage2_training.runs.records import FEWEST_TO_CHOOSE, TaughtRecord, written
from sspa.stage2_training.runs.resuming import check_same_inputs, folder_to_resume
from sspa.stage2_training.runs.run_folder import RunFolder, check_free, create_run_folder, locked
from sspa.stage2_training.runs.stored_tensors import read_predictions, read_weights, write_predictions, write_weights
from sspa.stage2_training.training.branch_shares import fitted_shares
from sspa.stage2_training.training.checkpoint import CheckpointWriter, has_checkpoint, load_checkpoint
from sspa.stage2_training.training.event_log import EventLog, check_tensorboard, open_event_log
from sspa.stage2_training.training.interruption import Interruption, StopRequestedError, interruptions, leave
from sspa.stage2_training.training.logit_bias import fitted_biases
from sspa.stage2_training.training.optimization import Optimization, describe_groups, make_optimization
from sspa.stage2_training.training.result import RunResult, result_record, write_descriptions
from sspa.stage2_training.training.steps import check_steps, train_steps
from sspa.stage2_training.training.teaching import may_be_taught, taught_marks, with_taught_marks
from sspa.stage2_training.training.train_state import TrainState
from sspa.stage2_training.training.without_gradient import leave_out_without_gradient

# The untrained model's scores of the test split, saved until the result is written.
_UNTRAINED = "checkpoints/untrained.safetensors"
_MOST_STEPS_BETWEEN_SIGNALS = 50


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
    processes.everywhere(lambda: _check_options(config, device))
    folder = processes.first(lambda: _folder_before(config, out, resume))
    with deterministic_algorithms(config.training.deterministic):
        training = processes.everywhere(lambda: _Training(config, inputs or open_inputs(config), device, processes))
        processes.check_same(training.dataset.content_hash, "the data differ")
        processes.check_same(training.knowledge.content_hash, "the knowledge differs")
        if folder is None:
            folder = processes.first(
                lambda: create_run_folder(
                    out,
                    config,
                    training.dataset,
                    training.knowledge,
                    training.recognizer.backbone,
                    device,
                    processes.world,
                )
            )
        else:
            found = folder
            processes.first(lambda: check_same_inputs(found, training.dataset, training.knowledge, processes.world))
        with ExitStack() as held, interruptions(second_ends=processes.world == 1) as interruption:
            processes.first(lambda: _lock(folder, config, held))
            try:
                training.ask_teacher(folder)
                return training.train_and_score(folder, interruption)
            except (KeyboardInterrupt, SystemExit):
                if not is_teacher:
                    say(f"stopped; resume with the same command and --resume, or with --resume --out {folder.path}")
                raise


def _check_options(config: RunConfig, device: torch.device) -> None:
    check_steps(config, device)
    check_tensorboard(config.training.tensorboard)


def _folder_before(config: RunConfig, out: Path | None, resume: bool) -> RunFolder | None:
    if not resume:
        check_free(out)
        return None
    folder = folder_to_resume(out, config)
    if folder is not None and folder.finished:  # the command checks first, see `finished_run`
        raise UserError(f"{folder.path}: this run is finished; there is nothing to resume")
    return folder


def _lock(folder: RunFolder, config: RunConfig, held: ExitStack) -> None:
    held.enter_context(locked(folder))
    if folder.finished:
        raise UserError(f"{folder.path}: another process has finished this run meanwhile; there is nothing to train")
    if folder.config().data.root != config.data.root:  # the data has moved since the run was started
        folder.write_json("config.json", config.model_dump(mode="json"))


class _Training:
    """The inputs and the model of one run."""

    def __init__(self, config: RunConfig, inputs: RunInputs, device: torch.device, processes: Processes) -> None:
        self.config, self.device, self.processes = config, device, processes
        self.given, self.knowledge = inputs, inputs.knowledge
        self.taught: TaughtRecord | None = None
        # What its teacher will know is not left out.
        self.dataset = with_known_marks(inputs.dataset) if config.teacher.run is None else inputs.dataset
        splits = ", ".join(f"{len(split)} {name}" for name, split in self.dataset.splits.items())
        say(f"data: {self.dataset.name}, {splits}")
        say(f"protocol: {self.dataset.protocol}; {self.dataset.note}")
        self.recognizer = make_recognizer(config, self.knowledge, device)
        if self.recognizer.head.open_vocabulary:
            say_unfamiliar(self.knowledge.labels, self.recognizer.backbone)
        image_tower = self.recognizer.backbone.image_tower
        leave_out_without_gradient(self.recognizer.head, image_tower, config.loss)
        if config.training.checkpoint_activations:
            recompute_activations(image_tower.blocks())
        if config.training.compile:
            compile_model(self.recognizer.head, image_tower, self.recognizer.backbone.text_tower, device)
        self._read(self.dataset)
        self.inputs.check_batch_size()

    def _read(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.inputs = Inputs(self.config, dataset, self.recognizer.backbone, self.device, self.processes)
        self.train, self.val, self.test = (self.inputs.split(name) for name in ("train", "val", dataset.measured))
        self.shares = positive_shares(torch.from_numpy(self.train.targets)).to(self.device)

    def ask_teacher(self, folder: RunFolder) -> None:
        """Train on what the run's teacher is sure of too, if it has one and anything is unknown in train."""
        if self.config.teacher.run is None:
            return
        if not may_be_taught(self.given.dataset).any():
            say("nothing is unknown in train that a teacher may say, so that none is asked")
            return

        def make(config: RunConfig, path: Path) -> None:
            resume = self.processes.first((path / "run.json").exists)
            run(config, path, self.device, resume, self.processes, self.given, is_teacher=True)

        # A run that is resumed asks no teacher, and has to go on with the same random numbers.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            taught = taught_marks(folder, self.config, self.given, self.device, self.processes, make)
        self.taught = taught.about
        self._read(with_taught_marks(self.given.dataset, taught, self.config.teacher.repeat))

    def train_and_score(self, folder: RunFolder, interruption: Interruption) -> RunResult:
        """Start or resume in `folder`, and finish the run."""
        config, processes, checkpoints = self.config, self.processes, folder.file("checkpoints")
        started = time.monotonic()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.inputs.belong_to(folder.path)
        self._keep_features()
        batches = processes.everywhere(self.inputs.training)
        resumed = processes.first(lambda: has_checkpoint(checkpoints))
        if not resumed:
            self._initialise(batches)
        optimization = make_optimization(self.recognizer, config.training, len(batches))
        say(
            f"training {trainable_count(self.recognizer):,} parameters for {config.training.epochs} epochs of "
            f"{len(batches)} steps: {describe_groups(optimization.optimizer.param_groups)}"
        )
        if resumed:
            state = load_checkpoint(checkpoints, optimization, processes)
            processes.first(lambda: folder.cut_metrics(state.metrics_length))
            say(f"resuming in {folder.path} from epoch {state.epoch}, step {state.step}")
        else:
            state = self._first_scores(folder)
        state = self._train(folder, optimization, batches, state, interruption)
        for line in batches.unreadable():
            say(line)
        result = self._final_scores(folder, optimization, state, time.monotonic() - started)
        processes.first(lambda: rmtree(checkpoints))
        return result

    def _keep_features(self) -> None:
        # Where there is no test, test is val.
        scored = [self.train, self.val, *([self.test] if self.test is not self.val else [])]
        self.inputs.keep_features((scored, self.config.evaluation.views), ([self.train], self.config.training.views))

    def _initialise(self, batches: Batches) -> None:
        """Set data-dependent initial values, the same in every process; dropout then differs between processes."""
        own = batches if self.processes.world == 1 else self._whole_batches()
        head = self.recognizer.head
        with torch.no_grad():
            labels = self.recognizer.encode_labels()
        head.initialise(*self.inputs.sample(own, head.sample_images), labels)
        self.processes.same_everywhere(self.recognizer.trained_modules())
        if self.processes.rank:
            torch.manual_seed(self.config.training.seed + 1_000_003 * self.processes.rank)

    def _whole_batches(self) -> Batches:
        return Inputs(self.config, self.dataset, self.recognizer.backbone, self.device).training()

    def _first_scores(self, folder: RunFolder) -> TrainState:
        """Score the untrained model, the best epoch until another is better."""
        untrained = self._score(self.test, f"{self.test.name}, untrained")
        of_val = untrained if self.test is self.val else self._score(self.val, "val, untrained")
        val = metrics_by_branch(of_val, self.val, self.dataset)

        def write() -> int:
            folder.cut_metrics(0)
            write_predictions(folder, untrained, self.test, _UNTRAINED)
            write_weights(folder, self.recognizer.trained_modules())
            write_descriptions(folder, self.recognizer.head, self.dataset.labels.keys)
            return folder.append("metrics.jsonl", _epoch_line(0, {}, val))

        return TrainState(best_map=val["both"].mAP, metrics_length=self.processes.first(write))

    def _train(
        self,
        folder: RunFolder,
        optimization: Optimization,
        batches: Batches,
        state: TrainState,
        interruption: Interruption,
    ) -> TrainState:
        """The epochs from `state` on. Signals are handled between training steps and between scored batches."""
        options = self.config.training
        log = open_event_log(
            folder.file("tensorboard"), options.tensorboard and not self.processes.rank, optimization.step_count
        )
        began, pace = state.epoch, TimeLeft()
        with interruption.deferred(), CheckpointWriter(folder.file("checkpoints"), self.processes) as checkpoints:
            try:
                while state.epoch <= options.epochs and not _stops_early(state, options):
                    self._train_epoch(optimization, batches, state, interruption, log, checkpoints)
                    if state.epoch % options.score_every == 0 or state.epoch == options.epochs:
                        told = self._score_epoch(folder, optimization, len(batches), state, interruption, log)
                        say(told + pace.words(state.epoch - began + 1, options.epochs - state.epoch))
                    state.next_epoch()
                    checkpoints.save(optimization, state)
                    interruption.stop_if(self.processes.largest(interruption.requested))
            except StopRequestedError as stop:
                checkpoints.save(optimization, state)
                checkpoints.finish()
                leave(stop.number)
            finally:
                log.close()
        return state

    def _train_epoch(
        self,
        optimization: Optimization,
        batches: Batches,
        state: TrainState,
        interruption: Interruption,
        log: EventLog,
        checkpoints: CheckpointWriter,
    ) -> None:
        options, every = self.config.training, self.config.training.checkpoint_every
        asked = self.processes.first(lambda: self._steps_between_signals(optimization, state))
        last = time.monotonic()
        left = (len(batches) - state.step) * min(options.batch_size, len(self.train))
        with progress(f"epoch {state.epoch}/{options.epochs}", left, "images") as bar:
            for step in train_steps(
                self.recognizer, optimization, batches, self.config, state, self.processes, self.shares
            ):
                now = time.monotonic()
                state.seconds, last = state.seconds + now - last, now
                rate, recent = optimization.learning_rate, state.recent[-20:]
                bar.advance(
                    step.images,
                    f"loss {sum(recent) / max(len(recent), 1):.3f}, learning rate {rate:.2g}, "
                    f"best val mAP {100 * state.best_map:.2f} (epoch {state.best_epoch})",
                )
                log.add_scalar("loss", step.loss, optimization.step_count)
                log.add_scalar("learning rate", rate, optimization.step_count)
                if state.step % asked == 0:
                    interruption.stop_if(self.processes.largest(interruption.requested))
                if every is not None and state.step % every == 0 and state.step < len(batches):
                    checkpoints.save(optimization, state)

    def _steps_between_signals(self, optimization: Optimization, state: TrainState) -> int:
        """How many steps pass until the processes ask each other for a signal: about a second's worth, as each
        question costs a trip over the network."""
        if self.processes.world == 1 or not state.seconds:
            return 1
        return min(max(int(optimization.step_count / state.seconds), 1), _MOST_STEPS_BETWEEN_SIGNALS)

    def _score_epoch(
        self,
        folder: RunFolder,
        optimization: Optimization,
        steps: int,
        state: TrainState,
        interruption: Interruption,
        log: EventLog,
    ) -> str:
        """Score val with the averaged weights, and save them if they are the best so far; the figures in words."""
        # Processes score different numbers of batches, so stopping between them is only possible with one process.
        stop = (lambda: interruption.stop_if(interruption.requested)) if self.processes.world == 1 else lambda: None
        loss = state.losses / steps
        with weights_of(optimization.ema.module, optimization.trained):
            scored = self._score(self.val, "val", stop)
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

    def _final_scores(
        self, folder: RunFolder, optimization: Optimization, state: TrainState, seconds: float
    ) -> RunResult:
        """Score test with the best epoch's weights, and write the results."""
        began = time.monotonic()
        processes, dataset, test, val = self.processes, self.dataset, self.test, self.val
        processes.first(lambda: read_weights(folder, optimization.modules))
        processes.same_everywhere(optimization.modules)
        untrained, _ = processes.first(lambda: read_predictions(folder, _UNTRAINED))
        of_test = self._score(test, test.name)
        of_val = of_test if test is val else self._score(val, "val")
        result = RunResult(
            folder,
            state.best_epoch,
            test.name,
            metrics_by_branch(of_val, val, dataset),
            metrics_by_branch(of_test, test, dataset),
            metrics_by_branch(untrained, test, dataset),
        )
        tuned = tune_each(of_val["both"], val.targets)
        values = dict(zip(dataset.labels.keys, tuned.values.tolist(), strict=True))

        def write() -> None:
            write_predictions(folder, of_test, test)
            folder.write_json("thresholds.json", {"description": tuned.description, "values": values})
            costs = {
                "seconds": round(seconds + time.monotonic() - began, 1),
                "train_seconds": round(state.seconds, 2),
                **peak_memory(self.device),
            }
            folder.write_json(
                "result.json", written(result_record(result, self.recognizer, self.config, costs, self.taught))
            )

        processes.first(write)
        return result

    def _score(self, split: Split, name: str, after_batch: Callable[[], None] = lambda: None) -> Probabilities:
        views = self.processes.everywhere(lambda: self.inputs.scoring(split))

        unit = "images" if len(views) == 1 else "views"
        with progress(f"scoring {name}", len(views) * math.ceil(len(split) / self.processes.world), unit) as bar:

            def done(count: int) -> None:
                bar.advance(count)
                after_batch()

            return score_together(self.recognizer, views, len(split), self.processes, done)


def _stops_early(state: TrainState, options: TrainingOptions) -> bool:
    patience, trained = options.early_stopping, state.epoch - 1
    if patience is None or state.step or trained % options.score_every or trained - state.best_epoch < patience:
        return False
    say(f"early stopping: no better val mAP in {trained - state.best_epoch} epochs")
    return True


def _epoch_line(epoch: int, trained: dict[str, float], val: dict[str, Metrics]) -> dict[str, Any]:
    return {"epoch": epoch, **trained, "val": {branch: metrics.to_dict() for branch, metrics in val.items()}}
