"""The speed of the whole model compared with its bare image tower, and where the time goes.

The candidates are measured in turn (A B C A B C ...), so that a busy machine slows all of them; each ratio is the
median over rounds. Images are random and so are the weights, except for `embedded`: neither affects the cost of a step.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from sspa.shared.label_sets import read_label_set
from sspa.stage2_training.backbones.contract import ImageFeatures
from sspa.stage2_training.bench.untrained import untrained_sspa
from sspa.stage2_training.compute.algorithms import compile_model
from sspa.stage2_training.compute.memory import peak_memory
from sspa.stage2_training.compute.precision import Precision
from sspa.stage2_training.config.run_config import TrainingOptions
from sspa.stage2_training.model.loss_options import AslOptions
from sspa.stage2_training.model.losses import total_loss
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.training.optimization import Optimization, make_optimization
from sspa.stage2_training.training.steps import forward_context

TOWER, EVALUATION, STEP, KEPT_STEP = "bare tower", "evaluation", "training step", "training step, kept features"
Clock = Callable[[], float]

# Minimum duration of one timing: a GPU kernel takes less than the clock can resolve.
_SHORTEST_S = 0.1


@dataclass(frozen=True)
class BenchRequest:
    """What to measure; size is (height, width), batch in images.

    `processor_time` counts CPU seconds instead of wall-clock time: for one thread on a busy CPU, that is the time the
    work would take on an idle one. It does not include work on a GPU.
    """

    spec: str
    size: tuple[int, int]
    batch: int
    precision: Precision
    compile: bool
    labels: str
    rounds: int
    processor_time: bool = False


@dataclass(frozen=True)
class Speed:
    """Images per second (median over rounds), and the median ratio to the bare tower in the same round."""

    images_per_second: float
    ratio: float


@dataclass(frozen=True)
class BenchResult:
    """Speeds by what was measured; milliseconds per batch by stage, in evaluation and in a training step.

    `text_ms` is the time for the label texts, needed once per split in evaluation and not part of any speed. Peak
    memory is the GPU's if there is one, else the process's.
    """

    speeds: Mapping[str, Speed]
    evaluation_ms: Mapping[str, float]
    step_ms: Mapping[str, float]
    text_ms: float
    peak_bytes: int
    regions: int
    labels: int


def bench(request: BenchRequest, device: torch.device, done: Callable[[], None] = lambda: None) -> BenchResult:
    """Measure; `done` is called after each of 2 * rounds rounds.

    Raises:
        UserError: an unknown backbone or label set.
    """
    images = torch.randn(request.batch, 3, *request.size, device=device)
    recognizer = untrained_sspa(request.spec, "frozen", request.labels, images, request.precision)
    if request.compile:
        compile_model(recognizer.head, recognizer.backbone.image_tower, recognizer.backbone.text_tower, device)
        # A run does not compile a frozen tower; here the tower is the reference for the rest.
        recognizer.backbone.image_tower.compile()
    labels = len(read_label_set(request.labels).labels)
    targets = torch.randint(0, 2, (request.batch, labels), device=device)
    clock = time.process_time if request.processor_time else time.perf_counter
    model = _Measured(recognizer, images, targets, request.precision, clock)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    tasks = {
        TOWER: model.run_tower,
        EVALUATION: model.evaluate,
        STEP: lambda: model.train(images),
        KEPT_STEP: lambda: model.train(model.kept),
    }
    seconds = interleaved(tasks, request.rounds, device, done, clock)
    stages: list[tuple[dict[str, float], dict[str, float], float]] = []
    for _ in range(request.rounds):
        stages.append((model.stages_of_evaluation(), model.stages_of_step(), model.seconds_of_texts()))
        done()
    peak = peak_memory(device)
    return BenchResult(
        speeds={
            name: Speed(
                request.batch / median(taken),
                median(tower / own for tower, own in zip(seconds[TOWER], taken, strict=True)),
            )
            for name, taken in seconds.items()
        },
        evaluation_ms={name: 1000 * median(found[0][name] for found in stages) for name in stages[0][0]},
        step_ms={name: 1000 * median(found[1][name] for found in stages) for name in stages[0][1]},
        text_ms=1000 * median(found[2] for found in stages),
        peak_bytes=peak.get("peak_gpu_memory_bytes", peak["peak_memory_bytes"]),
        regions=recognizer.backbone.grid[0] * recognizer.backbone.grid[1],
        labels=labels,
    )


def interleaved(
    tasks: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    done: Callable[[], None] = lambda: None,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of one call of each task, round by round, the tasks in turn within each round.

    Each task is called twice before, untimed (compilation, allocation); the second call determines how often a short
    task is repeated within one timing.
    """
    repeats = {}
    for name, task in tasks.items():
        task()
        repeats[name] = max(1, math.ceil(_SHORTEST_S / max(_timed(task, 1, device, clock), 1e-6)))
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            seconds[name].append(_timed(task, repeats[name], device, clock))
        done()
    return seconds


class _Measured:
    """The model's work on one batch, whole and stage by stage."""

    def __init__(
        self, recognizer: Recognizer, images: Tensor, targets: Tensor, precision: Precision, clock: Clock
    ) -> None:
        self.recognizer, self.images, self.targets, self.precision = recognizer, images, targets, precision
        self.device, self.clock = images.device, clock
        with torch.inference_mode():
            self.labels = recognizer.eval().encode_labels()
        with torch.no_grad():
            self.kept: ImageFeatures = recognizer.backbone.encode_image(images)
        self.optimization: Optimization = make_optimization(recognizer, TrainingOptions(epochs=1), steps_per_epoch=1000)
        # The hook marks where the backward pass (with clipping) ends and the update begins.
        self._update_began = 0.0
        self.optimization.optimizer.register_step_pre_hook(lambda *_: self._note_update())

    @torch.inference_mode()
    def run_tower(self) -> None:
        self.recognizer.eval()
        self.recognizer.backbone.encode_image(self.images)

    @torch.inference_mode()
    def evaluate(self) -> None:
        """A batch as in `scoring.score`: label features are already computed."""
        prediction = self.recognizer.eval()(self.images, self.labels)
        for values in prediction.probabilities().values():
            values.cpu()

    def train(self, inputs: Tensor | ImageFeatures) -> None:
        """A step as in a run, including the image tower if images are given."""
        self.recognizer.train()
        with self._forward():
            prediction = self.recognizer(inputs)
        self.optimization.step(total_loss(dict(prediction.logits), self.targets, AslOptions()))

    @torch.inference_mode()
    def stages_of_evaluation(self) -> dict[str, float]:
        self.recognizer.eval()
        watch = _Watch(self.device, self.clock)
        features = self.recognizer.backbone.encode_image(self.images)
        watch.lap("tower")
        prediction = self.recognizer(features, self.labels)
        watch.lap("boxes")
        for values in prediction.probabilities().values():
            values.cpu()
        watch.lap("probabilities")
        return watch.laps

    def stages_of_step(self) -> dict[str, float]:
        self.recognizer.train()
        watch = _Watch(self.device, self.clock)
        with self._forward():
            features = self.recognizer.backbone.encode_image(self.images)
            watch.lap("tower")
            labels = self.recognizer.encode_labels()
            watch.lap("text")
            prediction = self.recognizer(features, labels)
            watch.lap("boxes")
        loss = total_loss(dict(prediction.logits), self.targets, AslOptions())
        watch.lap("loss")
        self.optimization.step(loss)
        watch.lap("backward", until=self._update_began)
        watch.lap("optimizer")
        return watch.laps

    @torch.inference_mode()
    def seconds_of_texts(self) -> float:
        watch = _Watch(self.device, self.clock)
        self.recognizer.eval().encode_labels()
        watch.lap("text")
        return watch.laps["text"]

    def _forward(self) -> AbstractContextManager[None]:
        return forward_context(self.device, self.precision, "frozen")

    def _note_update(self) -> None:
        _wait(self.device)
        self._update_began = self.clock()


class _Watch:
    """Seconds between laps; each lap waits for all work on the device."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.device, self.clock, self.laps = device, clock, dict[str, float]()
        _wait(device)
        self._last = clock()

    def lap(self, name: str, until: float | None = None) -> None:
        _wait(self.device)
        now = self.clock() if until is None else until
        self.laps[name] = now - self._last
        self._last = now


def _timed(task: Callable[[], object], repeats: int, device: torch.device, clock: Clock) -> float:
    _wait(device)
    started = clock()
    for _ in range(repeats):
        task()
    _wait(device)
    return (clock() - started) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
