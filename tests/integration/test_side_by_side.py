"""Several runs on one page, in files and in a real browser."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from sspa.stage2_training.evaluation.metrics import evaluate_scores
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.report.side_by_side import write_side_by_side
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_predictions

from .browser import DESKTOP, PHONE, scrolls_sideways, visit
from .conftest import Ended
from .test_report import Reader
from .tiny_run import LABELS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Command = Callable[..., Ended]


@pytest.fixture(scope="module")
def worse_run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with its predictions shuffled, scored again."""
    path = tmp_path_factory.mktemp("other") / "guessing <i>run</i>"
    shutil.copytree(trained_run, path)
    folder = RunFolder(path)
    probabilities, targets = read_predictions(folder)
    guessed = {name: np.ascontiguousarray(values[::-1]) for name, values in probabilities.items()}
    tensors = {f"probabilities.{name}": torch.from_numpy(values) for name, values in guessed.items()}
    from safetensors.torch import save_file

    save_file({**tensors, "targets": torch.from_numpy(targets)}, path / "predictions.safetensors")
    result, protocol = folder.read_json("result.json"), get_protocol("custom")
    for name, values in guessed.items():
        result["test"][name] = evaluate_scores(values, targets, LABELS.keys, protocol).to_dict()
    folder.write_json("result.json", result)
    config = folder.read_json("config.json")
    config["training"]["lr"] = 0.123
    folder.write_json("config.json", config)
    return path


@pytest.fixture(scope="module")
def page(trained_run: Path, worse_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_side_by_side([trained_run, worse_run], tmp_path_factory.mktemp("page") / "two.html")


def test_figures_differences_and_settings(trained_run: Path, worse_run: Path, page: Path) -> None:
    read = Reader(page.read_text(encoding="utf-8"))
    good, bad = (RunFolder(path).read_json("result.json")["test"]["both"]["mAP"] for path in (trained_run, worse_run))
    for value in (good, bad):
        assert f"{100 * value:.2f}" in read.text
    assert f"{100 * (bad - good):+.2f}" in read.text
    assert "training.lr" in read.text
    assert "0.123" in read.text
    assert "training.epochs" not in read.text
    assert "is not compared" not in read.text
    assert not {"i", "script"} & set(read.tags)
    assert len(read.ids) == len(set(read.ids))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("run.json", "protocol", {"name": "pa100k", "hash": "0"}), "another protocol (pa100k 0, not custom"),
        (("run.json", "data", {"name": "circles", "hash": "0", "note": ""}), "other data (circles, not squares)"),
        (("test_ids.json", 0, "another"), "other test images"),
    ],
)
def test_what_cannot_be_compared_is_said(
    trained_run: Path, worse_run: Path, tmp_path: Path, change: tuple[str, str | int, object], reason: str
) -> None:
    folder = RunFolder(tmp_path / "changed")
    shutil.copytree(worse_run, folder.path)
    name, key, value = change
    content = folder.read_json(name)
    content[key] = value
    folder.write_json(name, content)
    written = write_side_by_side([trained_run, folder.path], tmp_path / "page.html")
    text = Reader(written.read_text(encoding="utf-8")).text
    assert f"changed is not compared: {reason}" in " ".join(text.split())
    assert "mAP, with 95 % intervals" not in text


def test_the_command(sspa_train: Command, trained_run: Path, worse_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    ended = sspa_train("report", trained_run, worse_run, "--out", out)
    assert (ended.code, ended.output.strip()) == (0, str(out))
    before = out.read_bytes()
    for arguments, message in (
        ((trained_run, worse_run, "--out", out), "page.html: exists already; nothing was changed"),
        ((trained_run, trained_run, "--out", tmp_path / "new.html"), "is named twice"),
        ((trained_run, tmp_path, "--out", tmp_path / "new.html"), "is not a run folder (no run.json)"),
        ((trained_run, "--out", tmp_path / "new.html"), "--out: is for several runs"),
    ):
        ended = sspa_train("report", *arguments)
        assert ended.code == 2
        assert message in ended.messages
    assert out.read_bytes() == before
    assert not (tmp_path / "new.html").exists()


def test_one_run_whose_data_is_gone(sspa_train: Command, trained_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["root"] = str(tmp_path / "nowhere")
    (folder / "config.json").write_text(json.dumps(config))
    ended = sspa_train("report", folder)
    assert (ended.code, ended.output.strip()) == (0, str(folder / "report.html"))
    (line,) = [line for line in ended.messages.splitlines() if line.startswith("the report has no images")]
    assert "nowhere" in line


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_in_a_browser(browser: "Browser", trained_run: Path, page: Path, size: dict[str, int], scheme: str) -> None:
    for path in (trained_run / "report.html", page):
        with visit(browser, path.as_uri(), viewport=size, color_scheme=scheme) as shown:
            assert not scrolls_sideways(shown)
            for details in shown.locator("details").all():
                details.evaluate("part => { part.open = true }")
            assert not scrolls_sideways(shown)
            background, ink = shown.evaluate(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
            )
            assert (_brightness(background) > _brightness(ink)) == (scheme == "light")
            # Every plot and image is drawn, and no plot is wider than its column.
            assert shown.locator("svg").count() >= 5
            assert shown.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
            assert shown.evaluate(
                "[...document.querySelectorAll('svg')].every(plot => plot.getBoundingClientRect().right <= innerWidth)"
            )


def _brightness(colour: str) -> float:
    return sum(map(float, colour.removeprefix("rgb(").removesuffix(")").split(",")))
