"""The device that is chosen, and what it does for memory."""

import subprocess
import sys

import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.compute.device import choose_device

# Page faults of ten buffers of 64 MiB, one after the other, before and after the choice.
_FAULTS = """
import resource
import torch
from sspa.stage2_training.compute.device import choose_device

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
choose_device("cpu")
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
    finished = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True)
    before, after = map(int, finished.stdout.split())
    assert after < before / 5
