"""The pretended GPU refuses what a real one refuses, and nothing else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from .pretended_cuda import MixUpError, is_on_gpu, pretended_cuda


@pytest.mark.parametrize(
    "mixed",
    [
        lambda gpu, cpu: gpu + cpu,
        lambda gpu, cpu: torch.stack([gpu, cpu]),
        lambda gpu, cpu: torch.where(gpu > 0, cpu, gpu),
        lambda gpu, cpu: nn.functional.linear(gpu, cpu[None]),
        lambda gpu, cpu: cpu[gpu.long()],
        lambda gpu, cpu: gpu.add_(cpu),
        lambda gpu, cpu: torch.zeros(3, device="cuda").scatter_(0, cpu.long(), gpu),
        lambda gpu, cpu: nn.Linear(3, 2)(gpu),
        lambda gpu, cpu: nn.Linear(3, 2).cuda()(cpu),
        lambda gpu, cpu: torch._foreach_add([gpu], [cpu]),
    ],
)
def test_tensors_of_two_devices_do_not_mix(mixed: Callable[[Tensor, Tensor], object]) -> None:
    with pretended_cuda(), pytest.raises(MixUpError, match="cuda:0 and cpu"):
        mixed(torch.ones(3).to("cuda"), torch.ones(3))


def test_numpy_cannot_see_it() -> None:
    with pretended_cuda():
        tensor = torch.ones(3, device="cuda")
        for look in (np.asarray, Tensor.numpy):
            with pytest.raises(TypeError, match="can't convert cuda:0"):
                look(tensor)
        assert tensor.cpu().numpy().sum() == 3


def test_what_a_gpu_allows() -> None:
    with pretended_cuda():
        gpu, cpu = torch.arange(3.0, device="cuda"), torch.arange(3)
        assert (gpu * torch.tensor(2.0)).device.type == "cuda"  # a number on the CPU
        for on_gpu in (
            gpu[cpu],
            gpu.mean(),
            gpu.new_zeros(2),
            torch.zeros_like(gpu),
            gpu.to(torch.float64),
            cpu.to(gpu),
            cpu.to(device="cuda", dtype=torch.float32),
        ):
            assert on_gpu.is_cuda
        for on_cpu in (gpu.to("cpu"), gpu.cpu(), torch.zeros(3)):
            assert not on_cpu.is_cuda
        cpu.copy_(gpu)
        assert not cpu.is_cuda


def test_a_module_moves_trains_and_comes_back() -> None:
    with pretended_cuda():
        module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.MultiheadAttention(4, 1)).to("cuda")
        assert all(is_on_gpu(tensor) for tensor in module.state_dict().values() if tensor.dim())
        optimizer = torch.optim.AdamW(module.parameters())
        hidden = module[1](module[0](torch.randn(5, 3, device="cuda")))
        loss = module[2](hidden, hidden, hidden)[0].square().sum()
        loss.backward()
        assert all(is_on_gpu(parameter.grad) for parameter in module.parameters() if parameter.grad is not None)
        optimizer.step()
        assert not any(is_on_gpu(tensor) for tensor in module.cpu().state_dict().values())


def test_waits_are_counted() -> None:
    with pretended_cuda() as waits:
        gpu = torch.ones(3, device="cuda")
        float(gpu.sum())
        gpu.tolist()
        torch.ones(3).tolist()
    assert waits == {"__float__": 1, "tolist": 1}


def test_nothing_is_left_afterwards() -> None:
    with pretended_cuda():
        gpu = torch.ones(3, device="cuda")
    assert gpu.device.type == "cpu"
    assert torch.cuda.is_available() == (torch.cuda.device_count() > 0)
