"""Ray: two workers share the blocks, and one that is killed midway costs only its block."""

import os
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sspa.stage1_knowledge.engines.contract import Answer, Engine, Identity, Request
from sspa.stage1_knowledge.engines.ray_blocks import RayBlocks, block_size


class Mortal(Engine):
    """Answers by the request's number; the first worker to see request 37 dies by SIGKILL, once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def identity(self) -> Identity:
        return Identity("mortal 1", "m", revision="r")

    def answer(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer]]:
        for request in requests:
            time.sleep(0.02)
            with (self._folder / f"asked.{os.getpid()}").open("a") as log:
                log.write(f"{request.seed}\n")
            if request.seed == 37 and not (self._folder / "died").exists():
                (self._folder / "died").touch()
                os.kill(os.getpid(), 9)
            yield request, Answer(f"answer {request.seed}", "stop", 3, 2, 1)


@pytest.mark.parametrize(
    ("requests", "workers", "block"), [(20, 2, 64), (1000, 2, 125), (320_000, 8, 4096), (10_000, 8, 312), (0, 1, 64)]
)
def test_blocks_grow_with_the_work(requests: int, workers: int, block: int) -> None:
    assert block_size(requests, workers) == block


@pytest.mark.slow
def test_a_lost_worker_costs_only_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    # Ray nices its workers to 15: beside other work on a busy machine they would wait for minutes.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(__import__(Mortal.__module__, fromlist=["x"]))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    engine = RayBlocks(partial(Mortal, tmp_path), workers=2, block=8)
    assert engine.identity == Identity("ray, mortal 1", "m", revision="r")
    asked = [Request(f"key{i}", ({"role": "user", "content": str(i)},), i, 80) for i in range(80)]
    answers = {request.key: answer.text for request, answer in engine.answer(asked)}
    ray.shutdown()
    assert (tmp_path / "died").exists()
    assert answers == {f"key{i}": f"answer {i}" for i in range(80)}
    worked = [len(file.read_text().split()) for file in tmp_path.glob("asked.*")]
    assert len(worked) == 3  # two workers, and the one that took the place of the killed
    assert sum(worked) <= 80 + 8, "more than one block was asked again"
