"""The choice of the device, and how a CPU keeps freed memory."""

import os
import subprocess
import sys

import pytest
import torch

from sspa.shared.errors import UserError
from sspa.stage2_training.compute.device import choose_device, computes_bf16, prepare_device

# Page faults of ten buffers of 64 MiB, one after the other, before and after the choice.
_FAULTS = """
import resource
import torch
from sspa.stage2_training.compute.device import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: torch sees no CUDA device"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_on_a_cpu_freed_memory_is_used_again_without_page_faults() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    finished = subprocess.run(
        [sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True, env=environment
    )
    before, after = map(int, finished.stdout.split())
    # A fault per page before, and none but what other parts of the process take after.
    assert before > 10 * 16 * 2**20 * 4 / (4 * 2**20)
    assert after < before / 5


def test_choosing_a_device_changes_nothing_in_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the allocator is the process's own affair")

    monkeypatch.setattr("ctypes.CDLL", refuse)
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("wanted", ["gpu", "mps", "cuda:x", "cuda:-1", "cuda:", "CPU", ""])
def test_an_unknown_device_is_named(wanted: str) -> None:
    with pytest.raises(UserError, match=f"--device {wanted}: is not known; take auto, cpu, cuda, or cuda:N"):
        choose_device(wanted)


def test_a_gpu_is_taken_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("auto") == torch.device("cuda")
    with pytest.raises(UserError, match="--device cuda:2: torch sees 2 CUDA devices; take cuda:0 to cuda:1"):
        choose_device("cuda:2")


def test_float32_on_a_gpu_is_not_rounded_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.set_device", current.append)
    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [kind.allow_tf32 for kind in kinds]
    try:
        for kind in kinds:
            kind.allow_tf32 = True
        prepare_device(torch.device("cuda"))
        assert [kind.allow_tf32 for kind in kinds] == [False, False]
        prepare_device(torch.device("cuda:1"))
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.allow_tf32 = value
    assert current == [torch.device("cuda:1")]


@pytest.mark.parametrize(
    ("capability", "hip", "expected"),
    [((7, 5), None, False), ((8, 0), None, True), ((9, 0), None, True), ((0, 0), "6", True)],
)
def test_bf16_is_what_the_gpu_computes_in_and_not_what_torch_emulates(
    capability: tuple[int, int], hip: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    monkeypatch.setattr("torch.version.hip", hip)

    assert computes_bf16(torch.device("cuda")) is expected
    assert not computes_bf16(torch.device("cpu"))
