"""Records are read as written, in this version's format and in the first one's."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.runs.records import (
    EpochRecord,
    PrecisionRecord,
    ResultRecord,
    RunRecord,
    ThresholdsRecord,
    read_epochs,
    read_record,
    written,
)
from sspa.stage2_training.runs.run_folder import open_run_folder

# The JSON files of a run that the first version made.
FORMAT_1 = Path(__file__).parent / "format_1"


def _json(name: str) -> Any:
    return json.loads((FORMAT_1 / name).read_text())


def test_records_of_the_first_format_are_read() -> None:
    run, result = read_record(FORMAT_1 / "run.json", RunRecord), read_record(FORMAT_1 / "result.json", ResultRecord)
    raw = _json("result.json")
    assert (run.labels, run.environment.libraries["torch"]) == (("square0", "square1", "square2"), "2.13.0")
    assert (run.environment.cpu, run.preprocessing, result.precision) == (None, None, None)
    assert result.test["both"].figure("CF1") == raw["test"]["both"]["at_threshold"]["CF1"]
    assert result.test["both"].per_class == raw["test"]["both"]["per_class"]
    assert read_record(FORMAT_1 / "thresholds.json", ThresholdsRecord).values == _json("thresholds.json")["values"]
    epochs = read_epochs(FORMAT_1 / "metrics.jsonl")
    assert [line.epoch for line in epochs] == [0, 1, 2, 3]
    assert epochs[0].loss is None
    assert open_run_folder(FORMAT_1).config().loss.kind == "asl"


def test_a_result_survives_being_written_and_read() -> None:
    raw = _json("result.json")
    assert json.loads(json.dumps(written(read_record(FORMAT_1 / "result.json", ResultRecord)))) == raw | {
        "measured": "test"
    }
    result = ResultRecord.model_validate({**raw, "precision": {"training": "bf16", "scoring": "bf16"}, "later": 1})
    again = ResultRecord.model_validate(json.loads(json.dumps(written(result))))
    assert again.precision == PrecisionRecord(training="bf16", scoring="bf16")
    assert written(again)["later"] == 1


def test_an_undefined_figure_is_nan_here_and_null_in_the_file() -> None:
    raw = _json("result.json")
    raw["test"]["both"]["auroc_macro"] = None
    result = ResultRecord.model_validate(raw)
    assert math.isnan(result.test["both"].auroc_macro)
    assert written(result)["test"]["both"]["auroc_macro"] is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"best_ep', "cannot be read"),
        ('{"best_epoch": 1}', r"result\.json: does not hold what a run writes \(test: Field required"),
        ("[]", "the whole file"),
    ],
)
def test_a_damaged_record_names_file_and_field(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(UserError, match=words):
        read_record(tmp_path / "result.json", ResultRecord)
    with pytest.raises(UserError, match=r"is not a finished run \(run\.json is missing\)"):
        read_record(tmp_path / "run.json", RunRecord)


def test_a_run_of_no_labels_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({**_json("run.json"), "labels": []}))
    with pytest.raises(UserError, match=r"run\.json: does not hold what a run writes \(labels: .*at least 1 item"):
        read_record(tmp_path / "run.json", RunRecord)


def test_a_line_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    shutil.copy(FORMAT_1 / "metrics.jsonl", tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "los')
    assert len(read_epochs(tmp_path / "metrics.jsonl")) == 4
    assert read_epochs(tmp_path / "missing.jsonl") == []
    assert EpochRecord(epoch=0).val == {}
