"""`sspa-train backbone cost`: rows are parsed or rejected, and a measured row is a real step."""

from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.bench.step_cost import measure_step
from sspa.stage2_training.bench.step_request import StepRequest, measure_apart, spec_and_size

from ..backbones.architectures import write_model


def test_rows_name_a_backbone_and_a_size() -> None:
    assert spec_and_size("open_clip:RN50@448") == ("open_clip:RN50", (448, 448))
    assert spec_and_size("hf-hub:owner/name@256x128") == ("hf-hub:owner/name", (256, 128))


@pytest.mark.parametrize("row", ["embedded", "@260", "embedded@", "embedded@260x", "embedded@x260", "embedded@2.5"])
def test_other_rows_are_refused(row: str) -> None:
    with pytest.raises(UserError, match="write NAME@SIZE"):
        spec_and_size(row)


def test_a_step_is_measured(tmp_path: Path) -> None:
    write_model("vit", tmp_path)

    cost = measure_step(StepRequest(f"local-dir:{tmp_path}", (128, 64), "last:1", batch=2, threads=1, labels="voc"))

    assert cost.regions == 32
    assert cost.trained > 10_000
    assert 0 < cost.step_seconds < 60
    assert cost.peak_bytes > 1e8


@pytest.mark.slow
def test_a_row_that_cannot_run_says_why() -> None:
    with pytest.raises(UserError, match=r"open_clip:ViT-X at 64x64: .*no such architecture"):
        measure_apart(StepRequest("open_clip:ViT-X", (64, 64), "all", batch=1, threads=1, labels="voc"))
