"""Gradients summed over two processes: the sums, when they are sent, and that buckets never change."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from sspa.stage2_training.compute.gradient_sum import summed_gradients
from sspa.stage2_training.compute.processes import ALONE, Processes

WORLD = 2
# Bytes: the last two layers' 8 numbers fill a bucket, and the first layer's 25 another.
BUCKET = 30


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), nn.Linear(1, 1))


def images(rank: int) -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(rank))


def _work(rank: int, folder: str, sent_in: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    own, found = model(), {}
    unused = nn.Parameter(torch.zeros(3))
    dtype = getattr(torch, sent_in) if sent_in else None
    with summed_gradients([*own.parameters(), unused], Processes(rank, WORLD), BUCKET, dtype) as gradients:
        for step in range(3):
            own.zero_grad()
            own(images(rank)[:2]).square().sum().backward()  # a first part, which is not yet sent
            with gradients.follow():
                own(images(rank)[2:]).square().sum().backward()
            gradients.wait()
            found[step] = [parameter.grad.clone() for parameter in own.parameters()]
    assert unused.grad is None
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(("sent_in", "error"), [("", 1e-6), ("bfloat16", 2e-2)])
def test_each_gradient_is_the_sum_over_the_processes_at_every_step(sent_in: str, error: float, tmp_path: Path) -> None:
    # From a process of its own: torch forbids gradients in forks of one whose autograd has had to do with a device.
    subprocess.run([sys.executable, __file__, str(tmp_path), sent_in], check=True)
    whole = model()
    for rank in range(WORLD):
        whole(images(rank)).square().sum().backward()
    for rank in range(WORLD):
        for gradients in torch.load(tmp_path / f"{rank}.pt").values():
            for gradient, parameter in zip(gradients, whole.parameters(), strict=True):
                torch.testing.assert_close(gradient, parameter.grad, rtol=error, atol=error)
                assert torch.equal(gradient, gradient.bfloat16()) is bool(sent_in)


def test_a_bucket_is_sent_while_earlier_layers_are_still_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    own, events = model(), list[str]()

    class Sent:
        def wait(self) -> None:
            events.append("wait")

    def all_reduce(flat: torch.Tensor, async_op: bool) -> Any:
        assert async_op
        events.append(f"send {len(flat)}")
        return Sent()

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    for name, parameter in own.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: events.append(name))
    for _ in range(2):
        with summed_gradients(own.parameters(), Processes(0, 2), BUCKET) as gradients:
            with gradients.follow():
                own(images(0)).sum().backward()
            gradients.wait()
        assert [event for event in events if event.startswith("send")] == ["send 8", "send 25"]
        assert events.index("send 8") < events.index("0.bias")
        assert events.index("wait") > events.index("send 25")
        events.clear()
    own(images(0)).sum().backward()
    assert not [event for event in events if event.startswith("send")]  # no hook is left


def test_one_process_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", None)
    own = model()
    with summed_gradients(own.parameters(), ALONE) as gradients:
        with gradients.follow():
            own(images(0)).sum().backward()
        gradients.wait()
    assert all(parameter.grad is not None for parameter in own.parameters())


if __name__ == "__main__":
    mp.start_processes(_work, (sys.argv[1], sys.argv[2]), nprocs=WORLD, start_method="fork")
