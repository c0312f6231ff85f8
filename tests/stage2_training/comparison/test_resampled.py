from pathlib import Path

import numpy as np
import pytest

from sspa.stage2_training.comparison import resampled
from sspa.stage2_training.comparison.resampled import resampled_test_map
from sspa.stage2_training.config.resolving import resolve_config
from sspa.stage2_training.evaluation.bootstrap import resampled_map, resampling_weights
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.runs.run_folder import RunFolder

from .recorded_runs import KEYS, write_knowledge_file, write_run

SCORES = np.random.default_rng(0).random((30, len(KEYS))).astype(np.float32)
TARGETS = (np.random.default_rng(1).random((30, len(KEYS))) < 0.4).astype(np.int8)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    config = resolve_config(values={"knowledge": str(write_knowledge_file(tmp_path / "k.parquet")), "data.name": "d"})
    return write_run(tmp_path / "run", config, SCORES, TARGETS)


def test_it_is_the_bootstrap_of_the_wanted_labels(folder: RunFolder) -> None:
    found = resampled_test_map(folder, KEYS, ["ox", "cat"], 50)
    expected = resampled_map(SCORES[:, [0, 2]], TARGETS[:, [0, 2]], get_protocol("custom"), resampling_weights(30, 50))
    np.testing.assert_array_equal(found, 100 * expected)


def test_it_is_computed_once_and_read_then(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resampled_test_map(folder, KEYS, KEYS, 50)
    with monkeypatch.context() as patch:
        patch.setattr(resampled, "resampled_map", lambda *_: pytest.fail("computed again"))
        np.testing.assert_array_equal(resampled_test_map(folder, KEYS, KEYS, 50), first)
        for other in ((KEYS, 20), (KEYS[:2], 50)):
            with pytest.raises(pytest.fail.Exception, match="computed again"):
                resampled_test_map(folder, KEYS, *other)


@pytest.mark.parametrize("content", [b"", b"no tensors"])
def test_a_damaged_entry_is_computed_again(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    first = resampled_test_map(folder, KEYS, KEYS, 50)
    (entry,) = (tmp_path / "cache" / "resampled").iterdir()
    entry.write_bytes(content)
    np.testing.assert_array_equal(resampled_test_map(folder, KEYS, KEYS, 50), first)
    assert "is damaged; computing it again" in capsys.readouterr().err
