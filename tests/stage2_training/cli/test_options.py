"""The options that commands share."""

import pytest
import torch

from sspa.stage2_training.cli.options import command_device, given_settings


def test_a_numbered_gpu_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", current.append)
    assert command_device("cuda:1") == torch.device("cuda:1")
    assert command_device("cuda") == torch.device("cuda")
    assert current == [torch.device("cuda:1")]


def test_a_cpu_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("sspa.stage2_training.compute.device.keep_freed_memory", lambda: calls.append("memory kept"))
    assert command_device("cpu").type == "cpu"
    assert calls == ["memory kept"]


def test_only_options_that_were_given_become_settings() -> None:
    assert given_settings(None, "voc2007", None, training__seed=0, training__epochs=None) == {
        "data.name": "voc2007",
        "training.seed": 0,
    }
