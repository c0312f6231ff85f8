"""Exports of a trained run: usable with the file alone, and rejected where they must be."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sspa.stage2_training.export import targets
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.runs.run_folder import RunFolder

from .conftest import Ended
from .tiny_run import LABELS

Command = Callable[..., Ended]


def _prepared(path: Path, description: dict[str, Any]) -> np.ndarray:
    """An image prepared as the file's own metadata says, without our code."""
    words = description["preprocessing"]
    assert (words["colour"], words["layout"]) == ("RGB", "channels first")
    assert words["interpolation"].startswith("bicubic")
    size = (words["size"]["width"], words["size"]["height"])
    pixels = np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    return ((pixels / 255 - words["mean"]) / words["std"]).transpose(2, 0, 1).astype(np.float32)


def _check_against_the_run(
    run: Path, squares: Path, description: dict[str, Any], tag: Callable[[np.ndarray], np.ndarray]
) -> None:
    paths = [squares / "pictures" / f"test{number}.png" for number in range(3)]
    found = tag(np.stack([_prepared(path, description) for path in paths]))
    keys = [label["key"] for label in description["labels"]]
    assert [(label["key"], label["text"]) for label in description["labels"]] == [
        (label.key, label.text) for label in LABELS.labels
    ]
    for row, tags in zip(found, Tagger.load(run, device="cpu")(paths), strict=True):
        assert dict(zip(keys, row.tolist(), strict=True)) == pytest.approx(tags.probabilities, abs=1e-5)
    folder = RunFolder(run)
    tuned = folder.read_json("thresholds.json")["values"]
    assert dict(zip(keys, description["thresholds"]["values"], strict=True)) == tuned
    about = folder.read_json("run.json")
    assert description["run"]["protocol"] == about["protocol"]
    assert description["run"]["data"]["hash"] == about["data"]["hash"]
    assert description["run"]["knowledge"] == about["knowledge"]["hash"]


@pytest.mark.slow
def test_onnx(sspa_train: Command, trained_run: Path, squares: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    out = tmp_path / "model.onnx"
    ended = sspa_train("export", trained_run, "--to", "onnx", "--out", out)
    assert (ended.code, ended.output.strip()) == (0, str(out)), ended.messages
    assert "checked on 24 test images of squares: largest difference" in ended.messages
    assert "speed at 8 images per batch, median: torch" in ended.messages
    session = runtime.InferenceSession(out)
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    metadata = session.get_modelmeta().custom_metadata_map
    description = {key.removeprefix("sspa."): json.loads(value) for key, value in metadata.items()}
    assert given.shape == description["input"]["shape"] == ["batch", 3, 64, 64]
    assert returned.shape == description["output"]["shape"] == ["batch", 3]
    _check_against_the_run(
        trained_run, squares, description, lambda images: session.run([returned.name], {given.name: images})[0]
    )

    _check_the_documented_program(trained_run, squares, out)


def _check_the_documented_program(run: Path, squares: Path, exported: Path) -> None:
    """The program in docs/handing-over.md tags as the run does."""
    text = (Path(__file__).parents[2] / "docs" / "handing-over.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert program is not None
    work = exported.parent / "elsewhere"
    work.mkdir()
    shutil.copyfile(exported, work / "tagger.onnx")
    photos = [squares / "pictures" / f"test{number}.png" for number in range(2)]
    for photo, name in zip(photos, ("a.jpg", "b.jpg"), strict=True):
        shutil.copyfile(photo, work / name)
    done = subprocess.run(
        [sys.executable, "-I", "-c", program.group(1)], cwd=work, capture_output=True, text=True, check=True
    )
    tagger = Tagger.load(run, device="cpu", threshold=None)
    texts = {label.key: label.text for label in tagger.labels}
    wanted = [{texts[key]: round(tags.probabilities[key], 2) for key in tags.predicted} for tags in tagger(photos)]
    found = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    assert [set(tags) for tags in found] == [set(tags) for tags in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == pytest.approx(theirs, abs=0.011)


@pytest.mark.slow
def test_torch_when_the_data_is_gone(sspa_train: Command, trained_run: Path, squares: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "model.pt2"
    shutil.copytree(trained_run, run)
    config = json.loads((run / "config.json").read_text())
    config["data"]["root"] = str(tmp_path / "nowhere")
    (run / "config.json").write_text(json.dumps(config))
    ended = sspa_train("export", run, "--to", "torch", "--out", out)
    assert (ended.code, ended.output.strip()) == (0, str(out)), ended.messages
    assert "checked on 8 random tensors, since the run's images cannot be read" in ended.messages
    extra = {"sspa.json": ""}
    module = torch.export.load(out, extra_files=extra).module()

    def tag(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = module(torch.from_numpy(images)).numpy()
        return found

    _check_against_the_run(trained_run, squares, json.loads(extra["sspa.json"]), tag)
    # The same on images that are named.
    (tmp_path / "text.jpg").write_text("no image")
    ended = sspa_train("export", run, "--to", "torch", "--out", tmp_path / "b.pt2", "--check", tmp_path / "text.jpg")
    assert ended.code == 2
    assert "text.jpg: not an image" in ended.messages
    assert not (tmp_path / "b.pt2").exists()


def test_a_file_that_differs_is_not_kept(
    sspa_train: Command, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = targets.TARGETS["torch"]

    def open_wrongly(path: Path) -> targets.Runner:
        assert path.stat().st_size > 0
        exported = right.open(path)
        return lambda images: exported(images) + 2e-4

    wrong = targets.Target(right.name, right.ending, right.runtime, right.needs, right.write, open_wrongly)
    monkeypatch.setitem(targets.TARGETS, "torch", wrong)
    ended = sspa_train("export", trained_run, "--to", "torch", "--out", tmp_path / "model.pt2")
    assert ended.code == 2
    assert "differs from the run by 2.0e-04, more than 1e-04; it was not kept" in ended.messages
    assert list(tmp_path.iterdir()) == []


def test_wrong_use_is_one_line(
    sspa_train: Command, trained_run: Path, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "model.onnx"
    there.write_text("mine")
    monkeypatch.setattr(targets, "find_spec", lambda name: None if name == "onnxruntime" else object())
    for run, to, out, message in (
        (trained_run, "torch", there, "model.onnx: exists already; nothing was changed"),
        (trained_run, "onnx", tmp_path / "a", "--to onnx needs onnxruntime: install sspa with the extra 'export'"),
        (squares, "torch", tmp_path / "a", "is not a run folder (no run.json)"),
    ):
        ended = sspa_train("export", run, "--to", to, "--out", out)
        assert ended.code == 2
        (line,) = [line for line in ended.messages.splitlines() if line.startswith("error:")]
        assert message in line
    assert there.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [there]
