"""Using a trained run by commands: predictions in every form, and files that are not images."""

import csv
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import f1_score

from sspa.shared.errors import UserError
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.prediction import describing, job, parquet
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_predictions

from .bombs import write_bomb
from .conftest import Ended
from .tiny_run import COLOURS, LABELS

Command = Callable[..., Ended]


def test_evaluate_repeats_the_runs_own_figures(trained_run: Path, sspa_train: Command) -> None:
    ended = sspa_train("evaluate", trained_run, "--json", "--device", "cpu")
    assert json.loads(ended.output) == json.loads((trained_run / "result.json").read_text())["test"]
    assert json.loads((trained_run / "result.json").read_text())["precision"] == {
        "training": "float32",
        "scoring": "float32",
    }


def test_evaluate_takes_the_runs_own_thresholds(trained_run: Path, sspa_train: Command) -> None:
    found = json.loads(sspa_train("evaluate", trained_run, "--json", "--thresholds", "own").output)["both"]
    probabilities, targets = read_predictions(RunFolder(trained_run))
    own = json.loads((trained_run / "thresholds.json").read_text())["values"].values()
    chosen = probabilities["both"] >= np.array(list(own))
    assert found["at_threshold"]["OF1"] == pytest.approx(f1_score(targets.ravel(), chosen.ravel()))
    with pytest.raises(UserError, match="has no tuned threshold for 'zebra', which it was not trained on"):
        RunFolder(trained_run).tuned_for(["zebra"])


def test_a_run_differs_from_itself_in_nothing(trained_run: Path, sspa_train: Command, tmp_path: Path) -> None:
    assert "no differences" in sspa_train("runs", "diff", trained_run, trained_run).output
    other = tmp_path / "other"
    shutil.copytree(trained_run, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "training": {**config["training"], "lr": 0.5}}))
    said = sspa_train("runs", "diff", trained_run, other).output
    assert "training.lr" in said
    assert "environment: equal" in said
    found = json.loads(sspa_train("runs", "diff", trained_run, other, "--json").output)
    assert found["configuration"] == {"training.lr": [0.01, 0.5]}
    assert found["probabilities"]["both"]["largest"] == 0


def test_sentences_for_new_labels_come_from_the_other_stages_program(
    sspa_train: Command, trained_run: Path, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for `sspa-knowledge` that writes its arguments, once, and then fails."""
    program = tmp_path / "bin" / "sspa-knowledge"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "from pathlib import Path\n"
        "from sspa.shared.knowledge_format import write_knowledge\n"
        "from sspa.shared.label_sets import read_label_set\n"
        "command, *options = sys.argv[1:]\n"
        "given = dict(zip(options[::2], options[1::2], strict=True))\n"
        "labels = read_label_set(given['--labels'])\n"
        "assert command == 'generate' and labels.domain == 'natural'\n"
        "if 'broken' in labels.keys: sys.exit(3)\n"
        "rows = [{'label': key, 'description': f'About {key}.'} for key in labels.keys]\n"
        "write_knowledge(Path(given['--output']), rows)\n"
        "print('this is no result')\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(describing, "_program", lambda: str(program))
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    asked = ("predict", trained_run, squares / "pictures" / "test0.png", "--json", "--labels")
    by_name = json.loads(sspa_train(*asked, "red kite, dog").output)["labels"]
    ended = sspa_train(*asked, "red kite, dog", "--describe")
    described = json.loads(ended.output)["labels"]
    assert set(described) == {"red kite", "dog"}
    assert described != pytest.approx(by_name, abs=1e-4)
    assert "sspa-knowledge generate --labels" in ended.messages
    assert "red kite: About red kite." in ended.messages

    # A second time nothing is asked.
    program.write_text("#!/bin/false")
    again = sspa_train(*asked, "red kite, dog", "--describe")
    assert json.loads(again.output)["labels"] == described
    assert "sspa-knowledge generate" not in again.messages
    failed = sspa_train(*asked, "broken", "--describe")
    assert failed.code == 2
    assert "sspa-knowledge generate ended with 1; see above" in failed.messages


def test_a_table_on_a_terminal(
    sspa_train: Command, trained_run: Path, squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(job, "output", Console(file=shown, force_terminal=True, soft_wrap=True))
    assert sspa_train("predict", trained_run, squares / "pictures" / "test0.png", "--top", "2").code == 0
    assert shown.getvalue().count(" %") == 2
    assert str(squares / "pictures" / "test0.png") in shown.getvalue()


def test_json_lines_name_every_label_and_skip_what_is_no_image(
    sspa_train: Command, trained_run: Path, squares: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("this is no image")
    good = squares / "pictures" / "test0.png"
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:3000])
    shutil.copy(good, tmp_path / "zz [odd] name.png")
    ended = sspa_train("predict", trained_run, tmp_path, "--json", "--threshold", "0.0")
    assert ended.code == 0
    (line,) = map(json.loads, ended.output.splitlines())
    assert Path(line["path"]).name == "zz [odd] name.png"
    assert set(line["labels"]) == {label.key for label in LABELS.labels} == set(line["predicted"])
    assert "text.jpg: not an image that Pillow can read" in ended.messages
    assert "cut.png: damaged image" in ended.messages
    written = sspa_train("predict", trained_run, tmp_path, "--out", tmp_path / "found.parquet")
    assert "wrote the labels of 1 images" in written.messages


def test_plain_lines_where_there_is_no_terminal(sspa_train: Command, trained_run: Path, squares: Path) -> None:
    path = squares / "pictures" / "test0.png"
    ended = sspa_train("predict", trained_run, path, "--top", "2")
    rows = [line.split("\t") for line in ended.output.splitlines()]
    assert [row[0] for row in rows] == [str(path)] * 2
    assert float(rows[0][2]) >= float(rows[1][2])


def test_a_pipe_gets_the_predicted_labels_and_a_summary(
    sspa_train: Command, trained_run: Path, squares: Path, tagger: Tagger
) -> None:
    paths = [squares / "pictures" / f"test{number}.png" for number in range(4)]
    threshold = 0.6
    ended = sspa_train("predict", trained_run, *paths, "--threshold", threshold)
    expected, counts, none = [], Counter[str](), 0
    for path in paths:
        probabilities = tagger([path])[0].probabilities
        there = [label for label, probability in probabilities.items() if probability >= threshold]
        expected += [(str(path), label) for label in there] or [(str(path), "")]
        counts.update(there)
        none += not there
    assert [tuple(line.split("\t")[:2]) for line in ended.output.splitlines()] == expected
    summary = ended.messages.splitlines()[-1]
    assert summary.startswith("4 images: ")
    assert summary.endswith(f"no label {none}")
    assert all(f"{label} {count}" in summary for label, count in counts.items())


def test_the_ending_says_the_form_of_a_file(
    sspa_train: Command, trained_run: Path, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [squares / "pictures" / f"test{number}.png" for number in range(3)]
    for name in ("tags.csv", "tags.jsonl"):
        out = tmp_path / name
        assert sspa_train("predict", trained_run, *paths, "--out", out).code == 0
        refused = sspa_train("predict", trained_run, *paths, "--out", out)
        assert refused.code == 2
        assert f"{out}: exists already" in refused.messages
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tags.csv", "tags.jsonl"]
    rows = list(csv.DictReader((tmp_path / "tags.csv").open()))
    lines = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == [line["path"] for line in lines] == [str(path) for path in paths]
    assert [row["labels"].split(";") if row["labels"] else [] for row in rows] == [line["labels"] for line in lines]
    # Killed while the CSV was written: what was tagged is not tagged again.
    monkeypatch.setattr(job, "write_csv", _interrupted)
    again = ("predict", trained_run, *paths, "--out", tmp_path / "late.csv")
    assert sspa_train(*again).code == 130
    monkeypatch.undo()
    ended = sspa_train(*again)
    assert "tagging" not in ended.messages
    assert (tmp_path / "late.csv").read_text() == (tmp_path / "tags.csv").read_text()
    wrong = sspa_train("predict", trained_run, *paths, "--out", tmp_path / "tags.txt")
    assert wrong.code == 2
    assert "take .parquet, .csv or .jsonl" in wrong.messages


def _interrupted(*_: object) -> int:
    raise KeyboardInterrupt


def test_a_list_on_standard_input(
    sspa_train: Command, trained_run: Path, squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [squares / "pictures" / f"test{number}.png" for number in (3, 1)]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{path}\n" for path in paths)))
    ended = sspa_train("predict", trained_run, "-", "--json")
    assert [json.loads(line)["path"] for line in ended.output.splitlines()] == [str(path) for path in paths]


def test_labels_of_a_file_or_a_built_in_set(
    sspa_train: Command, trained_run: Path, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("predict", trained_run, squares / "pictures" / "test0.png", "--json", "--labels")
    Path("mine.txt").write_text("red kite\tred kite\ndog\n")
    of_file, of_names = (json.loads(sspa_train(*asked, given).output) for given in ("mine.txt", "red kite,dog"))
    assert of_file["labels"] == pytest.approx(of_names["labels"])
    assert len(json.loads(sspa_train(*asked, "voc").output)["labels"]) == 20


def test_names_that_are_not_utf8_are_left_out(
    sspa_train: Command, trained_run: Path, squares: Path, tmp_path: Path
) -> None:
    good = squares / "pictures" / "test0.png"
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(good, folder / "good.png")
    bad = Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.png"))
    shutil.copy(good, bad)
    out = tmp_path / "found.parquet"
    ended = sspa_train("predict", trained_run, folder, "--out", out)
    assert (ended.code, "1 whose names are not UTF-8" in ended.messages) == (0, True), ended.messages
    assert duckdb.sql(f"SELECT DISTINCT path FROM '{out}'").fetchall() == [(str(folder / "good.png"),)]
    ended = sspa_train("predict", trained_run, bad)
    assert (ended.code, "bad\\xff.png" in ended.messages) == (2, True), ended.messages


def test_parquet_goes_on_where_it_stopped(
    sspa_train: Command,
    trained_run: Path,
    squares: Path,
    tagger: Tagger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet, "_PART", 40)
    out = tmp_path / "predictions.parquet"
    asked = ("predict", trained_run, squares / "pictures", "--out", out, "--batch-size", "4")
    seen = []
    flush = parquet.PredictionFile.flush

    def fail_at_third(file: parquet.PredictionFile) -> None:
        seen.append(len(file._waiting))
        if len(seen) == 3:
            file._waiting = []
            raise KeyboardInterrupt
        flush(file)

    monkeypatch.setattr(parquet.PredictionFile, "flush", fail_at_third)
    assert sspa_train(*asked).code == 130
    assert not out.exists()
    monkeypatch.setattr(parquet.PredictionFile, "flush", flush)
    refused = sspa_train(*asked, "--threshold", "0.3")
    assert refused.code == 2
    assert "another run, other labels or thresholds" in refused.messages
    ended = sspa_train(*asked)
    assert ended.code == 0
    assert "80 of 144 images are tagged already" in ended.messages
    assert list(tmp_path.iterdir()) == [out]
    rows = duckdb.sql(f"SELECT path, label, probability, above_threshold, x_min, y_min, x_max, y_max FROM '{out}'")
    found = {(path, label): rest for path, label, *rest in rows.fetchall()}
    assert len(found) == 144 * len(COLOURS)
    path = squares / "pictures" / "test5.png"
    (tags,) = tagger(path)
    for key, probability in tags.probabilities.items():
        kept, above, left, top, right, bottom = found[str(path), key]
        assert kept == pytest.approx(probability, abs=1e-5)
        assert above == (key in tags.predicted)
        # The ViT sees 4 x 4 regions; the images have 96 x 64 pixels.
        assert (right - left, bottom - top) == (24, 16)
        assert left % 24 == top % 16 == 0
    assert sspa_train(*asked).code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/none*.jpg"], "no images there"),
        (["{folder}/none.jpg"], "no such image or folder"),
        (["{folder}"], "no images there"),
        (["{text}"], "text.jpg: not an image"),
        (["{bomb}"], "bomb.png: too many pixels"),
        (["{picture}", "--threshold", "half"], "--threshold half: give a number from 0 to 1"),
        (["{picture}", "--labels", "cat, ,dog"], "--labels, line 2: the label is empty"),
        (["{picture}", "--labels", "cat,Cat"], "already on line 1"),
        (["{picture}", "--labels", "absent.txt"], "--labels absent.txt: there is no such file"),
        (["{picture}", "--labels", "cat", "--knowledge", "{text}"], "choose one of them"),
        (["{picture}", "--describe"], "--describe is for --labels"),
    ],
)
def test_wrong_use_is_one_line(
    sspa_train: Command, trained_run: Path, squares: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("this is no image")
    write_bomb(tmp_path / "bomb.png")
    places = {
        "folder": tmp_path / "empty",
        "text": tmp_path / "text.jpg",
        "bomb": tmp_path / "bomb.png",
        "picture": squares / "pictures" / "test0.png",
    }
    ended = sspa_train("predict", trained_run, *(argument.format(**places) for argument in arguments))
    assert ended.code == 2
    (line,) = [line for line in ended.messages.splitlines() if line.startswith("error:")]
    assert message in line
    assert "Traceback" not in ended.messages


def test_what_is_no_run_folder(sspa_train: Command, squares: Path) -> None:
    ended = sspa_train("predict", squares, squares / "pictures" / "test0.png")
    assert ended.code == 2
    assert "is not a run folder (no run.json)" in ended.messages


def test_data_with_other_labels_asks_for_knowledge(
    sspa_train: Command, trained_run: Path, squares: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.csv").write_text("path,labels,split\ntest0.png,lamp,test\ntest1.png,chair,test\n")
    given = ("--root", squares / "pictures")
    manifest = tmp_path / "other.parquet"
    made = sspa_train("data", "prepare", "custom", *given, "--source", tmp_path / "other.csv", "--output", manifest)
    assert made.code == 0, made.messages
    ended = sspa_train("evaluate", trained_run, "--data", manifest, *given)
    assert ended.code == 2
    said = " ".join(ended.messages.split())
    assert "has labels that the run does not know (chair, lamp); give --knowledge FILE about its labels" in said
    assert str(trained_run / "knowledge.parquet") not in said
