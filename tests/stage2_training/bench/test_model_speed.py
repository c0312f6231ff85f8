"""The benchmark: the order of measurements, and that its stages are the model's own."""

from pathlib import Path

import pytest
import torch

from sspa.stage2_training.bench.model_speed import EVALUATION, KEPT_STEP, STEP, TOWER, BenchRequest, bench, interleaved

from ..backbones.architectures import write_model

CPU = torch.device("cpu")


class Machine:
    """A fake clock, and tasks of known duration."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, list[str]()

    def task(self, name: str, seconds: float) -> None:
        self.log.append(name)
        # The machine becomes slower and slower.
        self.now += seconds * (1 + 0.1 * len(self.log))

    def clock(self) -> float:
        return self.now


def test_tasks_are_timed_in_turn_so_that_a_slowing_machine_slows_all() -> None:
    machine, rounds = Machine(), []
    tasks = {"long": lambda: machine.task("long", 4.0), "other": lambda: machine.task("other", 2.0)}
    found = interleaved(tasks, 3, CPU, lambda: rounds.append(0), machine.clock)
    assert machine.log == ["long", "long", "other", "other", *["long", "other"] * 3]
    assert len(rounds) == 3
    assert found["long"] == pytest.approx([4.0 * (1 + 0.1 * call) for call in (5, 7, 9)])
    ratios = [long / other for long, other in zip(found["long"], found["other"], strict=True)]
    assert ratios == pytest.approx([2.0] * 3, rel=0.08)


def test_a_short_task_is_repeated_within_one_timing() -> None:
    machine = Machine()
    found = interleaved({"short": lambda: machine.task("short", 0.02)}, 1, CPU, clock=machine.clock)
    assert len(machine.log) == 2 + 5
    assert found["short"] == pytest.approx([0.02 * (1 + 0.1 * 5)])


def test_a_small_model_is_measured_whole_and_in_stages(tmp_path: Path) -> None:
    write_model("vit", tmp_path)
    calls: list[int] = []
    request = BenchRequest(
        f"local-dir:{tmp_path}", (64, 64), 2, precision="float32", compile=False, labels="voc", rounds=2
    )
    found = bench(request, CPU, lambda: calls.append(0))
    assert set(found.speeds) == {TOWER, EVALUATION, STEP, KEPT_STEP}
    assert found.speeds[TOWER].ratio == 1.0
    # How fast each is depends on the machine's load; that ratios are right is tested above, with a clock of our own.
    assert all(speed.ratio > 0 and speed.images_per_second > 0 for speed in found.speeds.values())
    assert list(found.evaluation_ms) == ["tower", "boxes", "probabilities"]
    assert list(found.step_ms) == ["tower", "text", "boxes", "loss", "backward", "optimizer"]
    assert min(found.evaluation_ms.values()) > 0
    assert min(found.step_ms.values()) > 0
    assert (found.labels, found.regions, len(calls)) == (20, 16, 4)
    assert found.peak_bytes > 1e8
