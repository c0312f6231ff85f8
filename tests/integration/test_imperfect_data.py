"""`sspa-train` on data that lacks something: a test split, or images that can be read."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.cli.main import app
from sspa.stage2_training.data.manifest import read_manifest, write_manifest

from .tiny_run import train_arguments, write_inputs

Command = Callable[..., str]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    write_inputs(tmp_path)
    return tmp_path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: object) -> str:
        capsys.readouterr()
        app([str(argument) for argument in arguments], standalone_mode=False)
        shown = capsys.readouterr()
        return shown.out + shown.err

    return call


def keep_only(inputs: Path, *splits: str) -> None:
    manifest = read_manifest(inputs / "squares.parquet")
    rows = [row for row, split in enumerate(manifest.splits) if split in splits]
    write_manifest(manifest.only(np.array(rows)), inputs / "squares.parquet")


def test_without_a_test_split_figures_are_of_val_and_say_so(inputs: Path, command: Command) -> None:
    keep_only(inputs, "train", "val")
    run = inputs / "run"
    said = command(*train_arguments(inputs, run), "--epochs", "2")
    assert "there is no test split: figures are of val, which also chose the epoch" in said
    result = json.loads((run / "result.json").read_text())
    assert result["measured"] == "val"
    assert result["test"]["both"]["mAP"] == result["val"]["both"]["mAP"]
    assert "mAP on val</h1>" in (run / "report.html").read_text()
    assert "(val)" in command("runs", "list", inputs)
    assert "val" in command("evaluate", run)
    with pytest.raises(UserError, match="has no split 'test'; it has train, val"):
        command("evaluate", run, "--split", "test")


def test_data_of_test_images_only_can_be_evaluated(inputs: Path, command: Command) -> None:
    run = inputs / "run"
    command(*train_arguments(inputs, run), "--epochs", "1")
    before = json.loads((run / "result.json").read_text())["test"]["both"]["mAP"]
    keep_only(inputs, "test")
    (inputs / "squares.parquet").rename(inputs / "only-test.parquet")
    shown = command("evaluate", run, "--data", inputs / "only-test.parquet", "--root", inputs / "pictures", "--json")
    found = json.loads(shown[shown.index("{") : shown.rindex("}") + 1])
    assert found["both"]["mAP"] == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("tower", ["frozen", "last:1"])
def test_training_goes_on_without_an_unreadable_image_and_lists_it(inputs: Path, command: Command, tower: str) -> None:
    (inputs / "pictures" / "train5.png").write_bytes(b"broken")
    said = command(*train_arguments(inputs, inputs / "run"), "--epochs", "1", "--set", f"backbone.tower={tower}")
    assert "train5.png: not an image that Pillow can read" in said
    assert (inputs / "run" / "result.json").exists()
    for number in (7, 8):
        (inputs / "pictures" / f"train{number}.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="of 96 training images cannot be read, more than 1%"):
        command(*train_arguments(inputs, inputs / "b"), "--epochs", "1", "--set", f"backbone.tower={tower}")
    arguments = (*train_arguments(inputs, inputs / "c"), "--epochs", "1", "--set", f"backbone.tower={tower}")
    command(*arguments, "--set", "data.unreadable_share=0.05")


@pytest.mark.parametrize("tower", ["frozen", "last:1"])
def test_scoring_stops_at_an_unreadable_image_unless_told_otherwise(inputs: Path, command: Command, tower: str) -> None:
    (inputs / "pictures" / "test5.png").write_bytes(b"broken")
    (inputs / "pictures" / "val2.png").write_bytes(b"broken")
    arguments = (*train_arguments(inputs, inputs / "run"), "--epochs", "1", "--set", f"backbone.tower={tower}")
    with pytest.raises(UserError, match=r"(test5|val2)\.png: not an image"):
        command(*arguments)
    said = command(*arguments, "--set", "data.unreadable=leave-out", "--out", inputs / "other")
    assert "without images that cannot be read: 1 of 24 val, 1 of 24 test: " in said
    assert json.loads((inputs / "other" / "result.json").read_text())["test"]["both"]["images"] == 23
    note = json.loads((inputs / "other" / "run.json").read_text())["data"]["note"]
    assert note.endswith("without images that cannot be read: 1 of 24 val, 1 of 24 test")
    (inputs / "pictures" / "test6.png").unlink()
    with pytest.raises(UserError, match=r"1 of 144 images are missing|test5\.png"):
        command("evaluate", inputs / "other", "--unreadable", "stop")
    shown = command("evaluate", inputs / "other", "--unreadable", "leave-out", "--json")
    assert json.loads(shown[shown.index("{") : shown.rindex("}") + 1])["both"]["images"] == 22


def test_check_lists_everything_that_cannot_be_decoded(inputs: Path, command: Command) -> None:
    asked = ("data", "check", inputs / "squares.parquet", "--root", inputs / "pictures")
    said = command(*asked, "--decode", "--duplicates")
    assert "every one of 144 images can be decoded" in said
    assert "no two splits share an image" in said
    for name in ("train5", "val2"):
        (inputs / "pictures" / f"{name}.png").write_bytes(b"broken")
    (inputs / "pictures" / "test1.png").write_bytes((inputs / "pictures" / "train1.png").read_bytes())
    with pytest.raises(UserError, match="3 problems with"):
        command(*asked, "--decode", "--duplicates")
