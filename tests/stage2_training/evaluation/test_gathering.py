import os
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from sspa.stage2_training.compute.processes import Processes
from sspa.stage2_training.evaluation.gathering import gather_by_index
from sspa.stage2_training.evaluation.metrics import evaluate_scores
from sspa.stage2_training.evaluation.protocols import get_protocol

TOTAL, WORLD = 101, 3


def sample_scores() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = (rng.random((TOTAL, 5)) < 0.3).astype(np.int8)
    return rng.random((TOTAL, 5)).astype(np.float32), targets


def work(rank: int, folder: str) -> None:
    """One process: every third sample, and one of another process as a sampler's padding would give."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    probabilities, _ = sample_scores()
    mine = np.append(np.arange(rank, TOTAL, WORLD), (rank + 1) % WORLD)
    np.save(f"{folder}/{rank}.npy", gather_by_index(Processes(rank, WORLD).of_each((mine, probabilities[mine])), TOTAL))
    dist.destroy_process_group()


def test_three_processes_give_what_one_gives(tmp_path: Path) -> None:
    mp.start_processes(work, (str(tmp_path),), nprocs=WORLD, start_method="fork")
    probabilities, targets = sample_scores()
    labels, protocol = [f"l{k}" for k in range(5)], get_protocol("custom")
    one = evaluate_scores(probabilities, targets, labels, protocol).to_dict()
    for rank in range(WORLD):
        gathered = np.load(tmp_path / f"{rank}.npy")
        assert evaluate_scores(gathered, targets, labels, protocol).to_dict() == one


def test_one_process_sorts_and_misses_nothing() -> None:
    values = np.array([[30.0], [10.0], [20.0], [10.0]])
    parts = [(np.array([2, 0, 1, 0]), values)]
    assert gather_by_index(parts, 3).ravel().tolist() == [10, 20, 30]
    with pytest.raises(ValueError, match="1 of 4 samples were scored by no process, the first is 3"):
        gather_by_index(parts, 4)
    with pytest.raises(ValueError, match="of 2"):
        gather_by_index(parts, 2)
