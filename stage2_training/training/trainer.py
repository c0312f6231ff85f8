"""What every training has: its inputs, the model, its teacher, the epochs with their checkpoints, and signals.

A subclass says what is scored and kept: `run` chooses by val and measures on test, `refit` repeats what was chosen.
Killed at any moment and restarted with `resume`, it gives bit-identical results; see `checkpoint` for what is saved.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree

import torch

from sspa.shared.errors import UserError
from sspa.shared.terminal import progress, say
from sspa.shared.time_left import TimeLeft
from sspa.stage2_training.backbones.unfamiliar_labels import say_unfamiliar
from sspa.stage2_training.compute.algorithms import compile_model, deterministic_algorithms
from sspa.stage2_training.compute.memory import peak_memory, recompute_activations
from sspa.stage2_training.compute.processes import Processes
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.data.dataset import Dataset, Split, with_known_marks
from sspa.stage2_training.evaluation.metrics import Probabilities
from sspa.stage2_training.features.batches import Batches
from sspa.stage2_training.features.inputs import Inputs
from sspa.stage2_training.inference.loading import make_recognizer
from sspa.stage2_training.inference.scoring import score_together
from sspa.stage2_training.model.contract import trainable_count
from sspa.stage2_training.model.losses import positive_shares
from sspa.stage2_training.model.options import View
from sspa.stage2_training.runs.inputs import RunInputs
from sspa.stage2_training.runs.records import TaughtRecord
from sspa.stage2_training.runs.resuming import check_same_inputs
from sspa.stage2_training.runs.run_folder import RunFolder, locked
from sspa.stage2_training.training.checkpoint import CheckpointWriter, has_checkpoint, load_checkpoint
from sspa.stage2_training.training.event_log import EventLog, check_tensorboard, open_event_log
from sspa.stage2_training.training.interruption import Interruption, StopRequestedError, interruptions, leave
from sspa.stage2_training.training.optimization import Optimization, describe_groups, make_optimization
from sspa.stage2_training.training.result import RunResult
from sspa.stage2_training.training.steps import check_steps, train_steps
from sspa.stage2_training.training.teaching import may_be_taught, taught_marks, with_taught_marks
from sspa.stage2_training.training.train_state import TrainState
from sspa.stage2_training.training.without_gradient import leave_out_without_gradient

_MOST_STEPS_BETWEEN_SIGNALS = 50


def check_options(config: RunConfig, device: torch.device) -> None:
    """Reject what cannot be trained, before anything is read.

    Raises:
        UserError: see `check_steps` and `check_tensorboard`.
    """
    check_steps(config, device)
    check_tensorboard(config.training.tensorboard)


def carry_out(
    make: Callable[[], "Trainer"],
    folder: RunFolder | None,
    config: RunConfig,
    processes: Processes,
    is_teacher: bool,
) -> RunResult:
    """Make the trainer, start in a new folder or resume in `folder`, and finish; all processes take part.

    Args:
        config: the trainer's.
        is_teacher: another run makes this one, and says how to resume.

    Raises:
        UserError: anything the user can fix.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM, after saving.
    """
    with deterministic_algorithms(config.training.deterministic):
        trainer = processes.everywhere(make)
        processes.check_same(trainer.dataset.content_hash, "the data differ")
        processes.check_same(trainer.knowledge.content_hash, "the knowledge differs")
        if folder is None:
            folder = processes.first(trainer.create_folder)
        else:
            found = folder
            processes.first(lambda: check_same_inputs(found, trainer.dataset, trainer.knowledge, processes.world))
        with ExitStack() as held, interruptions(second_ends=processes.world == 1) as interruption:
            processes.first(lambda: _lock(folder, config, held))
            try:
                trainer.ask_teacher(folder)
                return trainer.train(folder, interruption)
            except (KeyboardInterrupt, SystemExit):
                if not is_teacher:
                    say(f"stopped; resume with the same command and --resume, or with --resume --out {folder.path}")
                raise


def _lock(folder: RunFolder, config: RunConfig, held: ExitStack) -> None:
    held.enter_context(locked(folder))
    if folder.finished:
        raise UserError(f"{folder.path}: another process has finished this run meanwhile; there is nothing to train")
    if folder.config().data.root != config.data.root:  # the data has moved since the run was started
        folder.write_json("config.json", config.model_dump(mode="json"))


class Trainer(ABC):
    """The inputs and the model of one run.

    Attributes:
        given: the inputs as they are.
        dataset: what is trained on: without images of which nothing is known, and with what a teacher has said.
        last_epoch: after which training ends at the latest.
    """

    def __init__(self, config: RunConfig, inputs: RunInputs, device: torch.device, processes: Processes) -> None:
        self.config, self.device, self.processes = config, device, processes
        self.given, self.knowledge = inputs, inputs.knowledge
        self.last_epoch = config.training.epochs
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
        self.read(self.dataset)
        self.inputs.check_batch_size()

    def read(self, dataset: Dataset) -> None:
        """Train on this data set from here on."""
        self.dataset = dataset
        self.inputs = Inputs(self.config, dataset, self.recognizer.backbone, self.device, self.processes)
        self.train_split = self.inputs.split("train")
        self.shares = positive_shares(torch.from_numpy(self.train_split.targets)).to(self.device)

    @abstractmethod
    def create_folder(self) -> RunFolder:
        """A new folder, with what is known before training; called in the first process."""

    @abstractmethod
    def make_teacher(self, config: RunConfig, path: Path) -> None:
        """Make the run's own teacher in `path`, or finish it."""

    @abstractmethod
    def wanted_features(self) -> list[tuple[list[Split], tuple[View, ...]]]:
        """Of which splits under which views features are needed."""

    @abstractmethod
    def begin(self, folder: RunFolder) -> TrainState:
        """What comes before the first step, with the initial model."""

    @abstractmethod
    def after_epoch(
        self,
        folder: RunFolder,
        optimization: Optimization,
        steps: int,
        state: TrainState,
        interruption: Interruption,
        log: EventLog,
    ) -> str:
        """What is scored and kept after an epoch of `steps` steps; returns what is said about it."""

    @abstractmethod
    def finish(self, folder: RunFolder, optimization: Optimization, state: TrainState, started: float) -> RunResult:
        """Write the results; the training began at `started`, by the monotonic clock."""

    def score(self, split: Split, name: str, after_batch: Callable[[], None] = lambda: None) -> Probabilities:
        """The model's probabilities for one of the inputs' splits, by branch; all processes take part."""
        views = self.processes.everywhere(lambda: self.inputs.scoring(split))

        unit = "images" if len(views) == 1 else "views"
        with progress(f"scoring {name}", len(views) * math.ceil(len(split) / self.processes.world), unit) as bar:

            def done(count: int) -> None:
                bar.advance(count)
                after_batch()

            return score_together(self.recognizer, views, len(split), self.processes, done)

    def costs(self, state: TrainState, started: float) -> dict[str, float]:
        """The times and peak memory of the result, up to now."""
        passed = {"seconds": round(time.monotonic() - started, 1), "train_seconds": round(state.seconds, 2)}
        return {**passed, **peak_memory(self.device)}

    def stops(self, state: TrainState) -> bool:
        """Whether there is nothing to be gained from the epoch that `state` is in."""
        return False

    def ask_teacher(self, folder: RunFolder) -> None:
        """Train on what the run's teacher is sure of too, if it has one and anything is unknown in train."""
        if self.config.teacher.run is None:
            return
        if not may_be_taught(self.given.dataset).any():
            say("nothing is unknown in train that a teacher may say, so that none is asked")
            return
        # A run that is resumed asks no teacher, and has to go on with the same random numbers.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            taught = taught_marks(folder, self.config, self.given, self.device, self.processes, self.make_teacher)
        self.taught = taught.about
        self.read(with_taught_marks(self.given.dataset, taught, self.config.teacher.repeat))

    def train(self, folder: RunFolder, interruption: Interruption) -> RunResult:
        """Start or resume in `folder`, and finish the run."""
        config, processes, checkpoints = self.config, self.processes, folder.file("checkpoints")
        started = time.monotonic()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.inputs.belong_to(folder.path)
        self.inputs.keep_features(*self.wanted_features())
        batches = processes.everywhere(self.inputs.training)
        resumed = processes.first(lambda: has_checkpoint(checkpoints))
        if not resumed:
            self._initialise(batches)
        optimization = make_optimization(self.recognizer, config.training, len(batches))
        say(
            f"training {trainable_count(self.recognizer):,} parameters for {self.last_epoch} epochs of "
            f"{len(batches)} steps: {describe_groups(optimization.optimizer.param_groups)}"
        )
        if resumed:
            state = load_checkpoint(checkpoints, optimization, processes)
            processes.first(lambda: folder.cut_metrics(state.metrics_length))
            say(f"resuming in {folder.path} from epoch {state.epoch}, step {state.step}")
        else:
            state = self.begin(folder)
        state = self._train(folder, optimization, batches, state, interruption)
        for line in batches.unreadable():
            say(line)
        result = self.finish(folder, optimization, state, started)
        processes.first(lambda: _remove(checkpoints))
        return result

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
                while state.epoch <= self.last_epoch and not self.stops(state):
                    self._train_epoch(optimization, batches, state, interruption, log, checkpoints)
                    told = self.after_epoch(folder, optimization, len(batches), state, interruption, log)
                    if told:
                        say(told + pace.words(state.epoch - began + 1, self.last_epoch - state.epoch))
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
        left = (len(batches) - state.step) * min(options.batch_size, len(self.train_split))
        with progress(f"epoch {state.epoch}/{self.last_epoch}", left, "images") as bar:
            for step in train_steps(
                self.recognizer, optimization, batches, self.config, state, self.processes, self.shares
            ):
                now = time.monotonic()
                state.seconds, last = state.seconds + now - last, now
                rate, recent = optimization.learning_rate, state.recent[-20:]
                bar.advance(
                    step.images,
                    f"loss {sum(recent) / max(len(recent), 1):.3f}, learning rate {rate:.2g}" + _best(state),
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


def _remove(checkpoints: Path) -> None:
    if checkpoints.exists():  # a refit of no epochs has made none
        rmtree(checkpoints)


def _best(state: TrainState) -> str:
    """What val has chosen so far, if it chooses."""
    return f", best val mAP {100 * state.best_map:.2f} (epoch {state.best_epoch})" if state.best_map >= 0 else ""
