"""Packaged folders work without the original run, and reveal nothing about the machine they come from."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sspa.shared.knowledge_format import read_table, write_knowledge
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.runs.run_folder import RunFolder

from .conftest import Ended
from .tiny_run import LABELS

Command = Callable[..., Ended]


@pytest.fixture
def workshop(trained_run: Path, squares: Path, tmp_path: Path) -> Path:
    """A folder with a copy of the run and of what it needs, which a test may delete."""
    folder = tmp_path / "workshop"
    shutil.copytree(trained_run, folder / "run")
    shutil.copytree(squares / "backbone", folder / "backbone")
    for name in ("config.json", "result.json"):
        text = (folder / "run" / name).read_text()
        assert str(squares) in text
        (folder / "run" / name).write_text(text.replace(str(squares), str(folder)))
    knowledge = folder / "run" / "knowledge.parquet"
    rows = [{**row, "model": str(folder / "llm")} for row in read_table(knowledge)[0].to_pylist()]
    knowledge.unlink()
    write_knowledge(knowledge, rows)
    return folder


def test_it_tags_alone_and_names_no_place(
    sspa_train: Command, workshop: Path, trained_run: Path, squares: Path, tmp_path: Path
) -> None:
    out = tmp_path / "handed-over"
    ended = sspa_train("package", workshop / "run", "--out", out)
    assert (ended.code, ended.output.strip()) == (0, str(out)), ended.messages
    shutil.rmtree(workshop)
    moved = tmp_path / "elsewhere" / "model"
    moved.parent.mkdir()
    out.rename(moved)

    images = [squares / "pictures" / f"test{number}.png" for number in range(4)]
    ours, theirs = (Tagger.load(path, device="cpu", threshold=None) for path in (trained_run, moved))
    assert theirs(images) == ours(images)
    assert [label.key for label in theirs.labels] == [label.key for label in LABELS.labels]
    ended = sspa_train("predict", moved, *images, "--json", "--threshold", "tuned")
    assert ended.code == 0, ended.messages
    assert [set(json.loads(line)["predicted"]) for line in ended.output.splitlines()] == [
        set(tags.predicted) for tags in ours(images)
    ]

    (wheel,) = moved.glob("*.whl")
    assert f'pip install "./{wheel.name}"' in (moved / "README.md").read_text()
    files = [path for path in moved.rglob("*") if path.is_file()]
    places = [str(path).encode() for path in (tmp_path, trained_run.parent, squares, Path.home())]
    assert len(files) >= 9
    for path in files:
        assert not [place for place in places if place in path.read_bytes()], path
    with zipfile.ZipFile(wheel) as program:
        for name in program.namelist():
            assert not [place for place in places if place in program.read(name)], name
    assert {row["model"] for row in read_table(moved / "knowledge.parquet")[0].to_pylist()} == {"llm"}


def test_the_card_is_filled_from_the_run(sspa_train: Command, workshop: Path, tmp_path: Path) -> None:
    out = tmp_path / "my tagger"
    assert sspa_train("package", workshop / "run", "--out", out).code == 0
    card = (out / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    folder = RunFolder(workshop / "run")
    both, about = folder.read_json("result.json")["test"]["both"], folder.read_json("run.json")
    parsed = yaml.safe_load(front)
    assert parsed["pipeline_tag"] == "image-classification"
    (result,) = parsed["model-index"][0]["results"]
    assert result["metrics"][0]["type"] == "mAP"
    assert result["metrics"][0]["value"] == pytest.approx(100 * both["mAP"], abs=0.005)
    assert about["protocol"]["hash"] in result["metrics"][0]["name"]
    for said in (
        f"**{100 * both['mAP']:.2f} mAP on test** (95 % interval",
        about["protocol"]["hash"],
        about["data"]["note"],
        about["knowledge"]["hash"][:16],
        "## Limits",
        "a local folder: unknown here; ask who gave it to you",
    ):
        assert said in body
    # Names that mean something in Markdown or HTML are shown letter by letter.
    assert r"\<b\>red\</b\> \& co" in body
    assert "<b>" not in body
    for key, value in both["per_class"].items():
        assert f"| {key} | {100 * value:.1f} |" in body


def test_wrong_use_is_one_line(sspa_train: Command, workshop: Path, squares: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for run, out, message in (
        (workshop / "run", there, "there: exists already; nothing was changed"),
        (squares, tmp_path / "new", "is not a run folder (no run.json)"),
    ):
        ended = sspa_train("package", run, "--out", out)
        assert ended.code == 2
        assert message in ended.messages
    (workshop / "run" / "result.json").unlink()
    ended = sspa_train("package", workshop / "run", "--out", tmp_path / "new")
    assert ended.code == 2
    assert "is not a finished run (result.json is missing)" in ended.messages
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "workshop"]
